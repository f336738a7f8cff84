"""The networks: tensors to tensors, torch only. Every network maps a ``StereoBatch`` to a ``Prediction``."""
