"""The embedded stack: PostgreSQL, Valkey and the services as processes of this machine, without root or Docker."""
