"""Flask-Session with its Redis interface."""

from __future__ import annotations

import flask
import flask_session
import redis


def test_a_session_lives_on_the_server(url: str) -> None:
    app = flask.Flask(__name__)
    store = redis.Redis.from_url(url)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=store, SECRET_KEY="s")
    flask_session.Session(app)

    @app.get("/visit")
    def visit() -> str:
        flask.session["visits"] = flask.session.get("visits", 0) + 1
        return str(flask.session["visits"])

    @app.get("/leave")
    def leave() -> str:
        flask.session.clear()
        return "bye"

    one, other = app.test_client(), app.test_client()
    assert [one.get("/visit").text for _ in range(3)] == ["1", "2", "3"]
    assert other.get("/visit").text == "1"
    assert len(store.keys("session:*")) == 2
    assert store.ttl(store.keys("session:*")[0]) > 0
    one.get("/leave")
    assert len(store.keys("session:*")) == 1
    assert one.get("/visit").text == "1"
