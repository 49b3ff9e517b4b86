-- Which prompts were changed, where and how? From the events promptcache.prefix.changed.
SELECT
    timestamp,
    service_name AS service,
    promptcache_route AS route,
    gen_ai_request_model AS model,
    promptcache_change_pattern AS pattern,
    promptcache_change_section AS section,
    promptcache_reason AS reason,
    promptcache_cause AS cause,
    promptcache_path AS path,
    promptcache_line AS line,
    promptcache_change_old_service_version AS old_version,
    promptcache_change_new_service_version AS new_version,
    promptcache_change_calls_per_hour AS calls_per_hour
FROM promptcache_changes
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
  AND match(promptcache_route, '^(${route:regex})$')
ORDER BY timestamp DESC
LIMIT 500
