"""The far end of flow.yaml, so that {{name}} runs with nothing else installed."""

import json


class Print:
    """A sink: a JSON object a line on standard output."""

    def write(self, record):
        print(json.dumps(record, ensure_ascii=False))
