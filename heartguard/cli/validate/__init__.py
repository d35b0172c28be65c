"""``heartguard validate``: a smoke test of a deployment, for operators."""
