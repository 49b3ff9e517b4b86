-- How long is it from one call to the next with the same prefix, from start to start?
-- One row of the heatmap a column: they part where lifetimes do. The ledger is stamped with the end of a call.
SELECT
    $__timeInterval(began) AS time,
    countIf(gap < 60) AS "under 1 min",
    countIf(gap >= 60 AND gap < 300) AS "1 to 5 min",
    countIf(gap >= 300 AND gap < 1800) AS "5 to 30 min",
    countIf(gap >= 1800 AND gap < 3600) AS "30 to 60 min",
    countIf(gap >= 3600) AS "over 1 h"
FROM (
    SELECT
        began,
        dateDiff('millisecond', before, began) / 1000 AS gap
    FROM (
        SELECT
            toDateTime64(timestamp, 3) - toIntervalMillisecond(toInt64(1000 * promptcache_duration)) AS began,
            lagInFrame(toNullable(began)) OVER (
                PARTITION BY promptcache_prefix_id, gen_ai_request_model ORDER BY began
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) AS before
        FROM promptcache_calls
        WHERE $__timeFilter(timestamp)
          AND match(service_name, '^(${service:regex})$')
          AND match(promptcache_route, '^(${route:regex})$')
          AND match(gen_ai_provider_name, '^(${provider:regex})$')
          AND match(gen_ai_request_model, '^(${model:regex})$')
          AND match(promptcache_attr_team, '^(${team:regex})$')
          AND promptcache_prefix_id != ''
          AND promptcache_duration > 0
    )
    WHERE before IS NOT NULL
)
GROUP BY time
ORDER BY time
