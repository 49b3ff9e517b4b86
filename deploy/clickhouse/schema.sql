-- Written by schema.py; change that. Run once, and again after an upgrade, before the Collector starts:
--     clickhouse-client --multiquery < schema.sql
-- The exporter inserts into promptcache_events; the views below sort its rows into a table for each kind of event. A retried
-- export brings a row twice: ask promptcache_calls, promptcache_changes, promptcache_advice, where each is once. The tables end
-- with _stored; how long they keep what is in their TTL:
--     ALTER TABLE promptcache_calls_stored MODIFY TTL toDateTime(timestamp) + INTERVAL 90 DAY

-- What arrived in the last days, as it arrived: enough to fill a table anew.
CREATE TABLE IF NOT EXISTS promptcache_events (
    Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    TraceId String,
    SpanId String,
    TraceFlags UInt8,
    SeverityText LowCardinality(String),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String),
    Body String,
    ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String),
    ScopeSchemaUrl LowCardinality(String),
    ScopeName LowCardinality(String),
    ScopeVersion LowCardinality(String),
    ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String),
    EventName LowCardinality(String)
) ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, Timestamp)
TTL toDateTime(Timestamp) + INTERVAL 7 DAY
SETTINGS ttl_only_drop_parts = 1;

-- The ledger: one row a call.
CREATE TABLE IF NOT EXISTS promptcache_calls_stored (
    timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    trace_id String,
    span_id String,
    service_name LowCardinality(String),
    service_version LowCardinality(String),
    service_namespace LowCardinality(String),
    service_instance_id LowCardinality(String),
    deployment_environment_name LowCardinality(String),
    gen_ai_provider_name LowCardinality(String),
    gen_ai_request_model LowCardinality(String),
    gen_ai_response_model LowCardinality(String),
    gen_ai_response_id String,
    gen_ai_conversation_id String,
    gen_ai_prompt_name LowCardinality(String),
    gen_ai_prompt_version LowCardinality(String),
    gen_ai_usage_input_tokens Nullable(Int64),
    gen_ai_usage_output_tokens Nullable(Int64),
    gen_ai_usage_cache_read_input_tokens Nullable(Int64),
    gen_ai_usage_cache_write_input_tokens Nullable(Int64),
    gen_ai_usage_reasoning_output_tokens Nullable(Int64),
    gen_ai_response_time_to_first_chunk Nullable(Float64),
    error_type LowCardinality(String),
    http_request_resend_count Nullable(Int64),
    promptcache_status LowCardinality(String),
    promptcache_reason LowCardinality(String),
    promptcache_cause LowCardinality(String),
    promptcache_path String,
    promptcache_line Nullable(Int64),
    promptcache_lost_tokens Nullable(Int64),
    promptcache_lost_usd Nullable(Float64),
    promptcache_expected_tokens Nullable(Int64),
    promptcache_hit_depth Nullable(Float64),
    promptcache_confidence LowCardinality(String),
    promptcache_also LowCardinality(String),
    promptcache_evidence String,
    promptcache_cost_total Nullable(Float64),
    promptcache_cost_read Nullable(Float64),
    promptcache_cost_write Nullable(Float64),
    promptcache_cost_uncached Nullable(Float64),
    promptcache_cost_output Nullable(Float64),
    promptcache_cost_without_cache Nullable(Float64),
    promptcache_cost_estimated Nullable(Bool),
    promptcache_price_version LowCardinality(String),
    promptcache_web_searches Nullable(Int64),
    promptcache_usage_available Nullable(Bool),
    promptcache_prefix_id LowCardinality(String),
    promptcache_fingerprint String,
    promptcache_key_id LowCardinality(String),
    promptcache_lineage_id String,
    promptcache_route LowCardinality(String),
    promptcache_strategy LowCardinality(String),
    promptcache_native_asked_by LowCardinality(String),
    promptcache_native_agreement LowCardinality(String),
    promptcache_native_cache_discount Nullable(Float64),
    promptcache_batch_id String,
    promptcache_schema Nullable(Int64),
    promptcache_ttl LowCardinality(String),
    promptcache_call_id String,
    promptcache_uncached_tokens Nullable(Int64),
    promptcache_prefix_chain String,
    promptcache_duration Nullable(Float64),
    promptcache_attr_team String,
    promptcache_attr_tenant String,
    promptcache_attr_feature String,
    promptcache_attr_user String,
    promptcache_write_tokens_5m Nullable(Int64),
    promptcache_write_tokens_30m Nullable(Int64),
    promptcache_write_tokens_1h Nullable(Int64),
    promptcache_write_tokens_12h Nullable(Int64),
    promptcache_write_tokens_24h Nullable(Int64),
    promptcache_native_type String,
    promptcache_native_reason String,
    promptcache_native_missed_tokens Nullable(Int64),
    promptcache_native_reusable_tokens Nullable(Int64),
    promptcache_price_tier String,
    promptcache_price_speed String,
    promptcache_price_geo String,
    promptcache_price_processing String,
    promptcache_price_upstream String,
    promptcache_price_account String,
    promptcache_price_ttls String,
    promptcache_price_parts String,
    other Map(LowCardinality(String), String),
    INDEX by_trace trace_id TYPE bloom_filter GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (service_name, timestamp, promptcache_call_id)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS promptcache_calls_filled TO promptcache_calls_stored AS
SELECT
    Timestamp AS timestamp,
    TraceId AS trace_id,
    SpanId AS span_id,
    ResourceAttributes['service.name'] AS service_name,
    ResourceAttributes['service.version'] AS service_version,
    ResourceAttributes['service.namespace'] AS service_namespace,
    ResourceAttributes['service.instance.id'] AS service_instance_id,
    ResourceAttributes['deployment.environment.name'] AS deployment_environment_name,
    LogAttributes['gen_ai.provider.name'] AS gen_ai_provider_name,
    LogAttributes['gen_ai.request.model'] AS gen_ai_request_model,
    LogAttributes['gen_ai.response.model'] AS gen_ai_response_model,
    LogAttributes['gen_ai.response.id'] AS gen_ai_response_id,
    LogAttributes['gen_ai.conversation.id'] AS gen_ai_conversation_id,
    LogAttributes['gen_ai.prompt.name'] AS gen_ai_prompt_name,
    LogAttributes['gen_ai.prompt.version'] AS gen_ai_prompt_version,
    toInt64OrNull(LogAttributes['gen_ai.usage.input_tokens']) AS gen_ai_usage_input_tokens,
    toInt64OrNull(LogAttributes['gen_ai.usage.output_tokens']) AS gen_ai_usage_output_tokens,
    toInt64OrNull(LogAttributes['gen_ai.usage.cache_read.input_tokens']) AS gen_ai_usage_cache_read_input_tokens,
    toInt64OrNull(LogAttributes['gen_ai.usage.cache_write.input_tokens']) AS gen_ai_usage_cache_write_input_tokens,
    toInt64OrNull(LogAttributes['gen_ai.usage.reasoning.output_tokens']) AS gen_ai_usage_reasoning_output_tokens,
    toFloat64OrNull(LogAttributes['gen_ai.response.time_to_first_chunk']) AS gen_ai_response_time_to_first_chunk,
    LogAttributes['error.type'] AS error_type,
    toInt64OrNull(LogAttributes['http.request.resend_count']) AS http_request_resend_count,
    LogAttributes['promptcache.status'] AS promptcache_status,
    LogAttributes['promptcache.reason'] AS promptcache_reason,
    LogAttributes['promptcache.cause'] AS promptcache_cause,
    LogAttributes['promptcache.path'] AS promptcache_path,
    toInt64OrNull(LogAttributes['promptcache.line']) AS promptcache_line,
    toInt64OrNull(LogAttributes['promptcache.lost.tokens']) AS promptcache_lost_tokens,
    toFloat64OrNull(LogAttributes['promptcache.lost.usd']) AS promptcache_lost_usd,
    toInt64OrNull(LogAttributes['promptcache.expected_tokens']) AS promptcache_expected_tokens,
    toFloat64OrNull(LogAttributes['promptcache.hit_depth']) AS promptcache_hit_depth,
    LogAttributes['promptcache.confidence'] AS promptcache_confidence,
    LogAttributes['promptcache.also'] AS promptcache_also,
    LogAttributes['promptcache.evidence'] AS promptcache_evidence,
    toFloat64OrNull(LogAttributes['promptcache.cost.total']) AS promptcache_cost_total,
    toFloat64OrNull(LogAttributes['promptcache.cost.read']) AS promptcache_cost_read,
    toFloat64OrNull(LogAttributes['promptcache.cost.write']) AS promptcache_cost_write,
    toFloat64OrNull(LogAttributes['promptcache.cost.uncached']) AS promptcache_cost_uncached,
    toFloat64OrNull(LogAttributes['promptcache.cost.output']) AS promptcache_cost_output,
    toFloat64OrNull(LogAttributes['promptcache.cost.without_cache']) AS promptcache_cost_without_cache,
    multiIf(LogAttributes['promptcache.cost.estimated'] = 'true', true, LogAttributes['promptcache.cost.estimated'] = 'false', false, NULL) AS promptcache_cost_estimated,
    LogAttributes['promptcache.price.version'] AS promptcache_price_version,
    toInt64OrNull(LogAttributes['promptcache.web_searches']) AS promptcache_web_searches,
    multiIf(LogAttributes['promptcache.usage.available'] = 'true', true, LogAttributes['promptcache.usage.available'] = 'false', false, NULL) AS promptcache_usage_available,
    LogAttributes['promptcache.prefix.id'] AS promptcache_prefix_id,
    LogAttributes['promptcache.fingerprint'] AS promptcache_fingerprint,
    LogAttributes['promptcache.key.id'] AS promptcache_key_id,
    LogAttributes['promptcache.lineage.id'] AS promptcache_lineage_id,
    LogAttributes['promptcache.route'] AS promptcache_route,
    LogAttributes['promptcache.strategy'] AS promptcache_strategy,
    LogAttributes['promptcache.native.asked_by'] AS promptcache_native_asked_by,
    LogAttributes['promptcache.native.agreement'] AS promptcache_native_agreement,
    toFloat64OrNull(LogAttributes['promptcache.native.cache_discount']) AS promptcache_native_cache_discount,
    LogAttributes['promptcache.batch.id'] AS promptcache_batch_id,
    toInt64OrNull(LogAttributes['promptcache.schema']) AS promptcache_schema,
    LogAttributes['promptcache.ttl'] AS promptcache_ttl,
    LogAttributes['promptcache.call.id'] AS promptcache_call_id,
    toInt64OrNull(LogAttributes['promptcache.uncached_tokens']) AS promptcache_uncached_tokens,
    LogAttributes['promptcache.prefix.chain'] AS promptcache_prefix_chain,
    toFloat64OrNull(LogAttributes['promptcache.duration']) AS promptcache_duration,
    LogAttributes['promptcache.attr.team'] AS promptcache_attr_team,
    LogAttributes['promptcache.attr.tenant'] AS promptcache_attr_tenant,
    LogAttributes['promptcache.attr.feature'] AS promptcache_attr_feature,
    LogAttributes['promptcache.attr.user'] AS promptcache_attr_user,
    toInt64OrNull(LogAttributes['promptcache.write.tokens.5m']) AS promptcache_write_tokens_5m,
    toInt64OrNull(LogAttributes['promptcache.write.tokens.30m']) AS promptcache_write_tokens_30m,
    toInt64OrNull(LogAttributes['promptcache.write.tokens.1h']) AS promptcache_write_tokens_1h,
    toInt64OrNull(LogAttributes['promptcache.write.tokens.12h']) AS promptcache_write_tokens_12h,
    toInt64OrNull(LogAttributes['promptcache.write.tokens.24h']) AS promptcache_write_tokens_24h,
    LogAttributes['promptcache.native.type'] AS promptcache_native_type,
    LogAttributes['promptcache.native.reason'] AS promptcache_native_reason,
    toInt64OrNull(LogAttributes['promptcache.native.missed_tokens']) AS promptcache_native_missed_tokens,
    toInt64OrNull(LogAttributes['promptcache.native.reusable_tokens']) AS promptcache_native_reusable_tokens,
    LogAttributes['promptcache.price.tier'] AS promptcache_price_tier,
    LogAttributes['promptcache.price.speed'] AS promptcache_price_speed,
    LogAttributes['promptcache.price.geo'] AS promptcache_price_geo,
    LogAttributes['promptcache.price.processing'] AS promptcache_price_processing,
    LogAttributes['promptcache.price.upstream'] AS promptcache_price_upstream,
    LogAttributes['promptcache.price.account'] AS promptcache_price_account,
    LogAttributes['promptcache.price.ttls'] AS promptcache_price_ttls,
    LogAttributes['promptcache.price.parts'] AS promptcache_price_parts,
    mapFilter((name, value) -> NOT has(['gen_ai.provider.name', 'gen_ai.request.model', 'gen_ai.response.model', 'gen_ai.response.id', 'gen_ai.conversation.id', 'gen_ai.prompt.name', 'gen_ai.prompt.version', 'gen_ai.usage.input_tokens', 'gen_ai.usage.output_tokens', 'gen_ai.usage.cache_read.input_tokens', 'gen_ai.usage.cache_write.input_tokens', 'gen_ai.usage.reasoning.output_tokens', 'gen_ai.response.time_to_first_chunk', 'error.type', 'http.request.resend_count', 'promptcache.status', 'promptcache.reason', 'promptcache.cause', 'promptcache.path', 'promptcache.line', 'promptcache.lost.tokens', 'promptcache.lost.usd', 'promptcache.expected_tokens', 'promptcache.hit_depth', 'promptcache.confidence', 'promptcache.also', 'promptcache.evidence', 'promptcache.cost.total', 'promptcache.cost.read', 'promptcache.cost.write', 'promptcache.cost.uncached', 'promptcache.cost.output', 'promptcache.cost.without_cache', 'promptcache.cost.estimated', 'promptcache.price.version', 'promptcache.web_searches', 'promptcache.usage.available', 'promptcache.prefix.id', 'promptcache.fingerprint', 'promptcache.key.id', 'promptcache.lineage.id', 'promptcache.route', 'promptcache.strategy', 'promptcache.native.asked_by', 'promptcache.native.agreement', 'promptcache.native.cache_discount', 'promptcache.batch.id', 'promptcache.schema', 'promptcache.ttl', 'promptcache.call.id', 'promptcache.uncached_tokens', 'promptcache.prefix.chain', 'promptcache.duration', 'promptcache.attr.team', 'promptcache.attr.tenant', 'promptcache.attr.feature', 'promptcache.attr.user', 'promptcache.write.tokens.5m', 'promptcache.write.tokens.30m', 'promptcache.write.tokens.1h', 'promptcache.write.tokens.12h', 'promptcache.write.tokens.24h', 'promptcache.native.type', 'promptcache.native.reason', 'promptcache.native.missed_tokens', 'promptcache.native.reusable_tokens', 'promptcache.price.tier', 'promptcache.price.speed', 'promptcache.price.geo', 'promptcache.price.processing', 'promptcache.price.upstream', 'promptcache.price.account', 'promptcache.price.ttls', 'promptcache.price.parts', 'event.name'], name), LogAttributes) AS other
FROM promptcache_events
WHERE if(EventName = '', LogAttributes['event.name'], EventName) = 'promptcache.call';

CREATE VIEW IF NOT EXISTS promptcache_calls AS
SELECT * FROM promptcache_calls_stored FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- The change journal: one row a change of a prompt.
CREATE TABLE IF NOT EXISTS promptcache_changes_stored (
    timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    trace_id String,
    span_id String,
    service_name LowCardinality(String),
    service_version LowCardinality(String),
    service_namespace LowCardinality(String),
    service_instance_id LowCardinality(String),
    deployment_environment_name LowCardinality(String),
    gen_ai_provider_name LowCardinality(String),
    gen_ai_request_model LowCardinality(String),
    gen_ai_prompt_name LowCardinality(String),
    promptcache_reason LowCardinality(String),
    promptcache_cause LowCardinality(String),
    promptcache_path String,
    promptcache_line Nullable(Int64),
    promptcache_key_id LowCardinality(String),
    promptcache_route LowCardinality(String),
    promptcache_schema Nullable(Int64),
    promptcache_change_pattern LowCardinality(String),
    promptcache_change_section LowCardinality(String),
    promptcache_change_old_fingerprint String,
    promptcache_change_new_fingerprint String,
    promptcache_change_old_service_version LowCardinality(String),
    promptcache_change_new_service_version LowCardinality(String),
    promptcache_change_old_prompt_version LowCardinality(String),
    promptcache_change_new_prompt_version LowCardinality(String),
    promptcache_change_calls_per_hour Nullable(Int64),
    other Map(LowCardinality(String), String),
    INDEX by_trace trace_id TYPE bloom_filter GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (service_name, timestamp, promptcache_change_old_fingerprint, promptcache_change_new_fingerprint)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS promptcache_changes_filled TO promptcache_changes_stored AS
SELECT
    Timestamp AS timestamp,
    TraceId AS trace_id,
    SpanId AS span_id,
    ResourceAttributes['service.name'] AS service_name,
    ResourceAttributes['service.version'] AS service_version,
    ResourceAttributes['service.namespace'] AS service_namespace,
    ResourceAttributes['service.instance.id'] AS service_instance_id,
    ResourceAttributes['deployment.environment.name'] AS deployment_environment_name,
    LogAttributes['gen_ai.provider.name'] AS gen_ai_provider_name,
    LogAttributes['gen_ai.request.model'] AS gen_ai_request_model,
    LogAttributes['gen_ai.prompt.name'] AS gen_ai_prompt_name,
    LogAttributes['promptcache.reason'] AS promptcache_reason,
    LogAttributes['promptcache.cause'] AS promptcache_cause,
    LogAttributes['promptcache.path'] AS promptcache_path,
    toInt64OrNull(LogAttributes['promptcache.line']) AS promptcache_line,
    LogAttributes['promptcache.key.id'] AS promptcache_key_id,
    LogAttributes['promptcache.route'] AS promptcache_route,
    toInt64OrNull(LogAttributes['promptcache.schema']) AS promptcache_schema,
    LogAttributes['promptcache.change.pattern'] AS promptcache_change_pattern,
    LogAttributes['promptcache.change.section'] AS promptcache_change_section,
    LogAttributes['promptcache.change.old.fingerprint'] AS promptcache_change_old_fingerprint,
    LogAttributes['promptcache.change.new.fingerprint'] AS promptcache_change_new_fingerprint,
    LogAttributes['promptcache.change.old.service.version'] AS promptcache_change_old_service_version,
    LogAttributes['promptcache.change.new.service.version'] AS promptcache_change_new_service_version,
    LogAttributes['promptcache.change.old.prompt.version'] AS promptcache_change_old_prompt_version,
    LogAttributes['promptcache.change.new.prompt.version'] AS promptcache_change_new_prompt_version,
    toInt64OrNull(LogAttributes['promptcache.change.calls_per_hour']) AS promptcache_change_calls_per_hour,
    mapFilter((name, value) -> NOT has(['gen_ai.provider.name', 'gen_ai.request.model', 'gen_ai.prompt.name', 'promptcache.reason', 'promptcache.cause', 'promptcache.path', 'promptcache.line', 'promptcache.key.id', 'promptcache.route', 'promptcache.schema', 'promptcache.change.pattern', 'promptcache.change.section', 'promptcache.change.old.fingerprint', 'promptcache.change.new.fingerprint', 'promptcache.change.old.service.version', 'promptcache.change.new.service.version', 'promptcache.change.old.prompt.version', 'promptcache.change.new.prompt.version', 'promptcache.change.calls_per_hour', 'event.name'], name), LogAttributes) AS other
FROM promptcache_events
WHERE if(EventName = '', LogAttributes['event.name'], EventName) = 'promptcache.prefix.changed';

CREATE VIEW IF NOT EXISTS promptcache_changes AS
SELECT * FROM promptcache_changes_stored FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Advice on breakpoints and lifetimes: one row each time that it is given.
CREATE TABLE IF NOT EXISTS promptcache_advice_stored (
    timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
    trace_id String,
    span_id String,
    service_name LowCardinality(String),
    service_version LowCardinality(String),
    service_namespace LowCardinality(String),
    service_instance_id LowCardinality(String),
    deployment_environment_name LowCardinality(String),
    gen_ai_provider_name LowCardinality(String),
    gen_ai_request_model LowCardinality(String),
    promptcache_route LowCardinality(String),
    promptcache_schema Nullable(Int64),
    promptcache_advice_kind LowCardinality(String),
    promptcache_advice_text String,
    promptcache_advice_ttl LowCardinality(String),
    promptcache_advice_calls Nullable(Int64),
    promptcache_advice_usd Nullable(Float64),
    promptcache_advice_gap_median Nullable(Float64),
    promptcache_advice_gap_p90 Nullable(Float64),
    promptcache_attr_team String,
    promptcache_attr_tenant String,
    promptcache_attr_feature String,
    promptcache_attr_user String,
    other Map(LowCardinality(String), String),
    INDEX by_trace trace_id TYPE bloom_filter GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (service_name, timestamp, promptcache_route, promptcache_advice_kind, gen_ai_request_model)
TTL toDateTime(timestamp) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS promptcache_advice_filled TO promptcache_advice_stored AS
SELECT
    Timestamp AS timestamp,
    TraceId AS trace_id,
    SpanId AS span_id,
    ResourceAttributes['service.name'] AS service_name,
    ResourceAttributes['service.version'] AS service_version,
    ResourceAttributes['service.namespace'] AS service_namespace,
    ResourceAttributes['service.instance.id'] AS service_instance_id,
    ResourceAttributes['deployment.environment.name'] AS deployment_environment_name,
    LogAttributes['gen_ai.provider.name'] AS gen_ai_provider_name,
    LogAttributes['gen_ai.request.model'] AS gen_ai_request_model,
    LogAttributes['promptcache.route'] AS promptcache_route,
    toInt64OrNull(LogAttributes['promptcache.schema']) AS promptcache_schema,
    LogAttributes['promptcache.advice.kind'] AS promptcache_advice_kind,
    LogAttributes['promptcache.advice.text'] AS promptcache_advice_text,
    LogAttributes['promptcache.advice.ttl'] AS promptcache_advice_ttl,
    toInt64OrNull(LogAttributes['promptcache.advice.calls']) AS promptcache_advice_calls,
    toFloat64OrNull(LogAttributes['promptcache.advice.usd']) AS promptcache_advice_usd,
    toFloat64OrNull(LogAttributes['promptcache.advice.gap.median']) AS promptcache_advice_gap_median,
    toFloat64OrNull(LogAttributes['promptcache.advice.gap.p90']) AS promptcache_advice_gap_p90,
    LogAttributes['promptcache.attr.team'] AS promptcache_attr_team,
    LogAttributes['promptcache.attr.tenant'] AS promptcache_attr_tenant,
    LogAttributes['promptcache.attr.feature'] AS promptcache_attr_feature,
    LogAttributes['promptcache.attr.user'] AS promptcache_attr_user,
    mapFilter((name, value) -> NOT has(['gen_ai.provider.name', 'gen_ai.request.model', 'promptcache.route', 'promptcache.schema', 'promptcache.advice.kind', 'promptcache.advice.text', 'promptcache.advice.ttl', 'promptcache.advice.calls', 'promptcache.advice.usd', 'promptcache.advice.gap.median', 'promptcache.advice.gap.p90', 'promptcache.attr.team', 'promptcache.attr.tenant', 'promptcache.attr.feature', 'promptcache.attr.user', 'event.name'], name), LogAttributes) AS other
FROM promptcache_events
WHERE if(EventName = '', LogAttributes['event.name'], EventName) = 'promptcache.advice';

CREATE VIEW IF NOT EXISTS promptcache_advice AS
SELECT * FROM promptcache_advice_stored FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
