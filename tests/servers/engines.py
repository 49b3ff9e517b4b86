"""Engines' ``/metrics`` in the form that their documentation shows: what is asked for, and some more."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from servers import HOST

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 2000.0
# HELP vllm:prefix_cache_queries_created Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_created gauge
vllm:prefix_cache_queries_created{engine="0",model_name="tiny"} 1.79e+09
# HELP vllm:prefix_cache_hits_total Prefix cache hits, in terms of number of cached tokens.
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 1500.0
"""
SGLANG = """\
# HELP sglang:prompt_tokens_total Number of prefill tokens processed.
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{model_name="tiny"} 8000.0
# HELP sglang:cached_tokens_total Number of cached prompt tokens.
# TYPE sglang:cached_tokens_total counter
sglang:cached_tokens_total{model_name="tiny"} 6000.0
# HELP sglang:cache_hit_rate The cache hit rate
# TYPE sglang:cache_hit_rate gauge
sglang:cache_hit_rate{model_name="tiny"} 0.75
# HELP sglang:token_usage The token usage
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="tiny"} 0.28
# HELP sglang:gen_throughput The generation throughput (token/s)
# TYPE sglang:gen_throughput gauge
sglang:gen_throughput{model_name="tiny"} 86.5
"""
LLAMA_CPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 6886
# HELP llamacpp:prompt_seconds_total Prompt process time
# TYPE llamacpp:prompt_seconds_total counter
llamacpp:prompt_seconds_total 2903.63
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 0
"""


@contextmanager
def engines(*, busy: bool = False) -> Iterator[list[str]]:
    """``host:port`` of an engine each that serves its page. The counters of busy ones grow with every scrape."""
    served = [ThreadingHTTPServer((HOST, 0), _handler(page, busy)) for page in (VLLM, SGLANG, LLAMA_CPP)]
    for server in served:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [f"{HOST}:{server.server_address[1]}" for server in served]
    finally:
        for server in served:
            server.shutdown()
            server.server_close()


def _handler(page: str, busy: bool) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        scrapes = 0

        def do_GET(self) -> None:
            type(self).scrapes += 1
            times = self.scrapes if busy else 1
            grown = re.sub(r"(?m)^(\S+_total\S* )([\d.]+)$", lambda found: f"{found[1]}{float(found[2]) * times}", page)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(grown.encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Page
