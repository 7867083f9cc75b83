use super::*;
use ferrule_plugin::testing::source;

fn file(name: &str, text: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ferrule-csv-source-{name}-{}.csv", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

/// From the position after each row, bad ones too, the rest is what the first reading gave, line numbers too.
#[test]
fn every_position_is_a_place_to_go_on_at() {
    let path =
        file("positions", b"a,b\r\n1,x\r\n\r\n2,\"y\r\nz\"\r\n3\r\n\"4\",\xc3\xa9\r5,\"a\"\"b\"\n\n6,\xff\n7,\"x\n8,x");
    let mut csv = source::<Csv>(json!({"path": path})).unwrap();
    csv.connect().unwrap();
    let mut reading = csv.read().unwrap();
    let (mut seen, mut positions) = (Vec::new(), Vec::new());
    loop {
        positions.push(reading.position().unwrap());
        let Some(item) = reading.next() else { break };
        seen.push(item.map_err(|error| error.to_string()));
    }
    let errors: Vec<&str> = seen.iter().filter_map(|item| item.as_ref().err()).map(|error| &error[..]).collect();
    let line = |number: usize| format!("{}, line {number}: ", path.display());
    assert_eq!(seen.len(), 8);
    assert!(errors[0].starts_with(&line(6)) && errors[1].starts_with(&line(10)) && errors[2].starts_with(&line(11)));
    for (number, position) in positions.iter().enumerate() {
        assert_eq!(position["record"], number);
        let rest = csv.read_from(position).unwrap().map(|item| item.map_err(|error| error.to_string()));
        assert_eq!(rest.collect::<Vec<_>>(), seen[number..]);
    }
    std::fs::remove_file(path).unwrap();
}

/// The schema follows the header and the types.
#[test]
fn schema_follows_header_and_types() {
    let path = file("schema", b"a,b\n1,2\n");
    let config = json!({"path": path, "types": {"b": "integer"}, "null_values": []});
    let mut csv = source::<Csv>(config).unwrap();
    csv.connect().unwrap();
    let schema = csv.schema().unwrap();
    assert_eq!(schema["properties"], json!({"a": {"type": ["number", "string"]}, "b": {"type": ["integer"]}}));
    assert_eq!(schema["required"], json!(["a", "b"]));
    std::fs::remove_file(path).unwrap();
}
