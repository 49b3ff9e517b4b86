-- The same as annotations: time, and what was changed.
SELECT
    timestamp AS time,
    concat(promptcache_route, ': ', promptcache_path, ' ', promptcache_cause, ' (', promptcache_change_pattern, ')') AS text,
    promptcache_change_section AS tags
FROM promptcache_changes
WHERE $__timeFilter(timestamp)
  AND match(service_name, '^(${service:regex})$')
  AND match(promptcache_route, '^(${route:regex})$')
ORDER BY timestamp
LIMIT 200
