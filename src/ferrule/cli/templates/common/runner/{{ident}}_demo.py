"""Runs {{name}}: one answer, then a stream. Build it, then: python {{ident}}_demo.py"""

from pathlib import Path

import ferrule

with ferrule.Host() as host, host.create(str(Path(__file__).parent / "{{library}}")) as runner:
    print(runner.call("run", {"text": "hello"}))
    with runner.open("run", {"text": "hello", "times": 5}) as stream:
        for item in stream:
            print(item)
