-- What are the chosen calls worth together?
SELECT
    count() AS calls,
    sum(promptcache_cost_total) AS usd,
    sum(promptcache_lost_usd) AS lost_usd,
    sum(gen_ai_usage_cache_read_input_tokens) / sum(gen_ai_usage_input_tokens) AS hit_rate
FROM promptcache_calls
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
  AND match(promptcache_route, '^(${route:regex})$')
  AND match(gen_ai_provider_name, '^(${provider:regex})$')
  AND match(gen_ai_request_model, '^(${model:regex})$')
  AND match(if(promptcache_attr_team = '', 'unattributed', promptcache_attr_team), '^(${team:regex})$')
  AND match(if(promptcache_reason = '', 'none', promptcache_reason), '^(${reason:regex})$')
