"""Kubernetes: a RayService and what lets a Prometheus operator scrape it."""
