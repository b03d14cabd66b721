"""Converters of a trained model to the formats of other runtimes: ONNX, CTranslate2 and ``torch.export``."""
