-- Which calls lost the most?
SELECT
    timestamp,
    service_name AS service,
    promptcache_attr_team AS team,
    promptcache_route AS route,
    gen_ai_request_model AS model,
    promptcache_status AS status,
    promptcache_reason AS reason,
    promptcache_cause AS cause,
    promptcache_path AS path,
    gen_ai_usage_input_tokens AS input,
    gen_ai_usage_cache_read_input_tokens AS read,
    gen_ai_usage_cache_write_input_tokens AS written,
    promptcache_lost_tokens AS lost,
    promptcache_lost_usd AS lost_usd,
    promptcache_cost_total AS usd,
    promptcache_duration AS seconds,
    trace_id,
    gen_ai_response_id AS response_id
FROM promptcache_calls
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
  AND match(promptcache_route, '^(${route:regex})$')
  AND match(gen_ai_provider_name, '^(${provider:regex})$')
  AND match(gen_ai_request_model, '^(${model:regex})$')
  AND match(if(promptcache_attr_team = '', 'unattributed', promptcache_attr_team), '^(${team:regex})$')
  AND match(if(promptcache_reason = '', 'none', promptcache_reason), '^(${reason:regex})$')
ORDER BY lost_usd DESC NULLS LAST, timestamp DESC
LIMIT 500
