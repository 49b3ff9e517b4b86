-- Which prefixes pay for themselves?
-- The price of an input token is what the call would have cost without a cache, less its output, by input token.
WITH (promptcache_cost_without_cache - promptcache_cost_output) / gen_ai_usage_input_tokens AS price
SELECT
    promptcache_prefix_id AS prefix,
    any(promptcache_route) AS route,
    any(gen_ai_request_model) AS model,
    multiIf(
        sum(promptcache_write_tokens_1h) > 0, '1h', sum(promptcache_write_tokens_30m) > 0, '30m',
        sum(promptcache_write_tokens_5m) > 0, '5m', ''
    ) AS ttl,
    countIf(gen_ai_usage_cache_write_input_tokens > 0) AS writes,
    countIf(gen_ai_usage_cache_read_input_tokens > 0) AS reads,
    sum(gen_ai_usage_cache_read_input_tokens) / sum(gen_ai_usage_input_tokens) AS hit_rate,
    sum(promptcache_cost_write - gen_ai_usage_cache_write_input_tokens * price) AS premium_usd,
    sum(gen_ai_usage_cache_read_input_tokens * price - promptcache_cost_read) AS saved_usd,
    saved_usd - premium_usd AS payback_usd
FROM promptcache_calls
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
  AND match(promptcache_route, '^(${route:regex})$')
  AND match(gen_ai_provider_name, '^(${provider:regex})$')
  AND match(gen_ai_request_model, '^(${model:regex})$')
  AND match(promptcache_attr_team, '^(${team:regex})$')
  AND promptcache_prefix_id != ''
  AND gen_ai_usage_input_tokens > 0
GROUP BY prefix
ORDER BY payback_usd
LIMIT 200
