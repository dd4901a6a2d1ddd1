"""The session store's tests."""

from __future__ import annotations

import json

import pytest
import redis
from sessions import RedisSessions, make_app


@pytest.fixture
def store(redis_settings):
    pool = redis.ConnectionPool.from_url(**redis_settings)
    with redis.Redis(connection_pool=pool) as client:
        yield client
    pool.disconnect()


@pytest.fixture
def app(store):
    return make_app(RedisSessions(store))


@pytest.fixture
def ann(app):
    client = app.test_client()
    client.post("/login", json={"user": "ann"})
    return client


def test_nobody_at_first(app, store):
    assert app.test_client().get("/me").json == {"user": None, "cart": []}
    assert store.dbsize() == 0


def test_logged_in(ann):
    assert ann.get("/me").json["user"] == "ann"


def test_the_cookie_says_nothing(ann):
    assert "ann" not in ann.get_cookie("sid").value


def test_logged_out(ann, store):
    ann.post("/logout")
    assert ann.get("/me").json["user"] is None
    assert store.keys("session:*") == []


def test_a_made_up_cookie_is_nobody(app):
    client = app.test_client()
    client.set_cookie("sid", "made-up")
    assert client.get("/me").json["user"] is None


def test_a_session_gets_a_name_of_its_own(app):
    client = app.test_client()
    client.set_cookie("sid", "chosen by somebody else")
    client.post("/login", json={"user": "ann"})
    assert client.get_cookie("sid").value != "chosen by somebody else"


def test_the_cart_grows(ann):
    for item in ("apple", "pear"):
        ann.post("/cart", json={"item": item})
    assert ann.get("/me").json["cart"] == ["apple", "pear"]


@pytest.mark.parametrize("item", ["apple", "Äpfel", "\u2028", "\\", '"', "", "x" * 10_000, None, 1, {"a": [1]}])
def test_what_is_in_it_comes_back(ann, item):
    ann.post("/cart", json={"item": item})
    assert ann.get("/me").json["cart"] == [item]


def test_two_users_have_two(app, ann):
    bob = app.test_client()
    bob.post("/login", json={"user": "bob"})
    bob.post("/cart", json={"item": "pear"})
    assert ann.get("/me").json == {"user": "ann", "cart": []}


def test_two_browsers_of_one_user_have_two(app, ann):
    other = app.test_client()
    other.post("/login", json={"user": "ann"})
    other.post("/cart", json={"item": "pear"})
    assert ann.get("/me").json["cart"] == []


def test_logged_out_everywhere(app, ann, store):
    other = app.test_client()
    other.post("/login", json={"user": "ann"})
    bob = app.test_client()
    bob.post("/login", json={"user": "bob"})
    ann.post("/logout-everywhere")
    assert ann.get("/me").json["user"] is None
    assert other.get("/me").json["user"] is None
    assert bob.get("/me").json["user"] == "bob"
    assert len(store.keys("session:*")) == 1


def test_logged_in_again_afterwards(ann):
    ann.post("/logout-everywhere")
    ann.post("/login", json={"user": "ann"})
    assert ann.get("/me").json["user"] == "ann"


def test_it_is_one_document(ann, store):
    (key,) = store.keys("session:*")
    assert json.loads(store.get(key)) == {"user": "ann", "since": 0}


def test_it_ends_when_it_is_not_used(store, pass_time):
    client = make_app(RedisSessions(store, seconds=1)).test_client()
    client.post("/login", json={"user": "ann"})
    pass_time(1.01)
    assert client.get("/me").json["user"] is None


def test_using_it_keeps_it(store, pass_time):
    client = make_app(RedisSessions(store, seconds=1)).test_client()
    client.post("/login", json={"user": "ann"})
    for _ in range(3):
        pass_time(0.6)
        assert client.get("/me").json["user"] == "ann"


def test_reading_writes_nothing(ann, store):
    (key,) = store.keys("session:*")
    before = store.get(key)
    ann.get("/me")
    assert store.get(key) == before
