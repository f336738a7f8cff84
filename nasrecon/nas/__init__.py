"""The networks: tensors to tensors, torch only."""
