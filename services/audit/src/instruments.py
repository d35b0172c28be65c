"""The audit service's own metrics. Sources are ``stream``, ``outbox``, ``request`` and ``intents``."""

from prometheus_client import Counter, Gauge

RECORDED = Counter("heartguard_audit_recorded_total", "Events recorded.", ["source"])
DUPLICATES = Counter("heartguard_audit_duplicates_total", "Events that came again, and were recorded once.", ["source"])
POISON = Counter("heartguard_audit_poison_total", "What came as an event and was none: put aside.", ["source"])
DEPTH = Gauge("heartguard_audit_queue_depth", "Events that wait to be recorded.", ["source"])
LAG = Gauge("heartguard_audit_lag_seconds", "How long the oldest event has been waiting to be recorded.", ["source"])
INTENTS = Gauge("heartguard_audit_intents_open", "Intents whose outcome is not known yet.")
POISON_KEPT = Gauge("heartguard_audit_poison_kept", "How much is put aside in the database.")
SPOOLS = Gauge("heartguard_audit_spool_folder_bytes", "Bytes of events in the spools that this service can see.")
