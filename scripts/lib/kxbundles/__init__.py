"""Makes model bundles: ONNX graphs, labels and golden pairs from published weights. Used by scripts/bundles only."""
