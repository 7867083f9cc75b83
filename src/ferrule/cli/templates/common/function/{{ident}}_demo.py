"""The far ends of flow.yaml, so that {{name}} runs with nothing else installed."""

import json


class Records:
    """A source: three records."""

    def read_data(self):
        yield {"id": 1, "name": "Ada"}
        yield {"id": 2, "name": "Grace"}
        yield {"id": 3, "name": "Edsger"}


class Print:
    """A sink: a JSON object a line on standard output."""

    def write(self, record):
        print(json.dumps(record, ensure_ascii=False))
