"""Message types, made by protoc from proto/*.proto when the project is built."""
