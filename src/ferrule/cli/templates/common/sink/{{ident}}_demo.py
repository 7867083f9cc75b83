"""The far end of flow.yaml, so that {{name}} runs with nothing else installed."""


class Records:
    """A source: three records."""

    def read_data(self):
        yield {"id": 1, "name": "Ada"}
        yield {"id": 2, "name": "Grace"}
        yield {"id": 3, "name": "Edsger"}
