"""Flask-Caching: views and functions whose results are kept."""

from __future__ import annotations

import itertools

import flask
import flask_caching


def test_views_and_functions_are_kept(url: str) -> None:
    app = flask.Flask(__name__)
    cache = flask_caching.Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url})
    counter = itertools.count()

    @app.get("/")
    @cache.cached(timeout=60)
    def index() -> str:
        return str(next(counter))

    @cache.memoize(60)
    def double(number: int) -> tuple[int, int]:
        return number * 2, next(counter)

    client = app.test_client()
    assert client.get("/").text == client.get("/").text == "0"
    with app.app_context():
        assert double(4) == double(4) == (8, 1)
        cache.delete_memoized(double)
        assert double(4) == (8, 2)
        cache.set_many({"a": 1, "b": 2})
        assert cache.get_many("a", "b") == [1, 2]
        assert cache.delete_many("a", "b")
        cache.clear()
    assert client.get("/").text == "3"
