"""A trial written as an adapter, a merged model or an ONNX model, and checked."""
