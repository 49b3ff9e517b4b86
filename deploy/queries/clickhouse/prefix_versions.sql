-- What does each version of a prompt cost, and who sent it?
SELECT
    promptcache_route AS route,
    promptcache_prefix_id AS prefix,
    min(timestamp) AS first_seen,
    max(timestamp) AS last_seen,
    arrayStringConcat(arraySort(groupUniqArray(service_version)), ', ') AS versions,
    count() AS calls,
    sum(gen_ai_usage_cache_read_input_tokens) / sum(gen_ai_usage_input_tokens) AS hit_rate,
    sum(promptcache_cost_total) AS usd,
    sum(promptcache_lost_usd) AS lost_usd
FROM promptcache_calls
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
  AND match(promptcache_route, '^(${route:regex})$')
  AND match(gen_ai_provider_name, '^(${provider:regex})$')
  AND match(gen_ai_request_model, '^(${model:regex})$')
  AND match(promptcache_attr_team, '^(${team:regex})$')
  AND promptcache_prefix_id != ''
GROUP BY route, prefix
ORDER BY first_seen DESC
LIMIT 200
