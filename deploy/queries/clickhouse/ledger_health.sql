-- Is every call in the ledger once, under which schema and key?
SELECT
    service_name AS service,
    promptcache_schema AS schema,
    promptcache_key_id AS key,
    count() AS calls,
    count() - uniqExact(promptcache_call_id) AS repeated,
    countIf(promptcache_price_version = '' AND gen_ai_usage_input_tokens > 0) AS unpriced,
    countIf(error_type = '' AND ifNull(gen_ai_usage_input_tokens, 0) = 0) AS without_usage
FROM promptcache_calls
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
GROUP BY service, schema, key
ORDER BY calls DESC
