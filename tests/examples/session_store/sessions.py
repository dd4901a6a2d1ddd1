"""Sessions of a Flask application in Redis: one JSON document each, which lives as long as it is used."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import redis
from flask import Flask, Request, Response, jsonify, request, session
from flask.sessions import SessionInterface, SessionMixin


class Session(dict[str, Any], SessionMixin):
    def __init__(self, sid: str, content: dict[str, Any], new: bool) -> None:
        super().__init__(content)
        self.sid, self.new, self.before = sid, new, json.dumps(content)

    @property
    def changed(self) -> bool:
        return json.dumps(dict(self)) != self.before


class RedisSessions(SessionInterface):
    """A session ends when it has not been used for ``seconds``, or when all of its user's are ended."""

    def __init__(self, client: redis.Redis, seconds: int = 1800, new_id: Callable[[], str] = secrets.token_hex) -> None:
        self._client, self._seconds, self._new_id = client, seconds, new_id

    def open_session(self, app: Flask, request: Request) -> Session:
        sid = request.cookies.get("sid", "")
        text = self._client.getex(f"session:{sid}", ex=self._seconds) if sid else None
        content = json.loads(text) if text else {}
        if content and content.get("since") != self._generation(content.get("user")):
            self._client.delete(f"session:{sid}")
            content = {}
        return Session(sid if content else self._new_id(), content, not content)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        assert isinstance(session, Session)
        if not session:
            if not session.new:
                self._client.delete(f"session:{session.sid}")
                response.delete_cookie("sid")
            return
        if session.changed:
            session["since"] = self._generation(session.get("user"))
            self._client.set(f"session:{session.sid}", json.dumps(dict(session)), ex=self._seconds)
        response.set_cookie("sid", session.sid, httponly=True)

    def end_all(self, user: str) -> None:
        self._client.incr(f"generation:{user}")

    def _generation(self, user: str | None) -> int:
        return int(self._client.get(f"generation:{user}") or 0) if user else 0


def make_app(sessions: RedisSessions) -> Flask:
    app = Flask(__name__)
    app.session_interface = sessions

    @app.post("/login")
    def login():
        session["user"] = request.json["user"]
        return jsonify(ok=True)

    @app.get("/me")
    def me():
        return jsonify(user=session.get("user"), cart=session.get("cart", []))

    @app.post("/cart")
    def cart():
        session["cart"] = [*session.get("cart", []), request.json["item"]]
        return jsonify(session["cart"])

    @app.post("/logout")
    def logout():
        session.clear()
        return jsonify(ok=True)

    @app.post("/logout-everywhere")
    def logout_everywhere():
        sessions.end_all(session["user"])
        return jsonify(ok=True)

    return app
