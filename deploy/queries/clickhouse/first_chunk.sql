-- How much later does an answer begin for each token that is not read?
SELECT
    gen_ai_usage_input_tokens - gen_ai_usage_cache_read_input_tokens AS unread_tokens,
    gen_ai_response_time_to_first_chunk AS first_chunk
FROM promptcache_calls
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
  AND match(promptcache_route, '^(${route:regex})$')
  AND match(gen_ai_provider_name, '^(${provider:regex})$')
  AND match(gen_ai_request_model, '^(${model:regex})$')
  AND match(promptcache_attr_team, '^(${team:regex})$')
  AND gen_ai_response_time_to_first_chunk > 0
ORDER BY timestamp DESC
LIMIT 5000
