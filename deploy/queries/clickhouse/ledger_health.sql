-- Is every call in the ledger once, under which schema and key?
SELECT
    service_name AS service,
    promptcache_schema AS schema,
    promptcache_key_id AS key,
    count() AS calls,
    count() - uniqExact(promptcache_call_id) AS repeated,
    countIf(promptcache_price_version = '') AS unpriced,
    countIf(promptcache_usage_available = false) AS without_usage
FROM promptcache_calls
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
GROUP BY service, schema, key
ORDER BY calls DESC
