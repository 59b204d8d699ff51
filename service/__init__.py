"""The domain and the control loop in plain Python: never imports ray, vllm, torch or fastapi."""
