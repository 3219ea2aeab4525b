"""Everything around the service: Prometheus, Grafana, containers, clusters."""
