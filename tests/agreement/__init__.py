"""Agreement with others' own test suites: PyTorch's operator database and the ONNX project's node tests.

``python -m tests.agreement`` prints what the tests here check, as the tables of ``docs/agreement.md``.
"""
