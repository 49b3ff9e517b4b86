"""The Grafana dashboards as code: ``make dashboards`` writes ``deploy/grafana/dashboards/*.json``.

``catalogue/`` says what each dashboard asks, as rows of panels; ``promql`` makes expressions of the names in
``otel_promptcache.semconv``; ``render`` makes Grafana's JSON of it all, once for each look of a panel.
"""
