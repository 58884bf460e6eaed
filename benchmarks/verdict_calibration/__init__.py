"""Whether the verdicts of `edgeformer bench` can be trusted: known slow-downs, planted many times."""
