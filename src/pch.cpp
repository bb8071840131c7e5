// Exists to compile pch.h once; every room that sees tensors reuses the result.
