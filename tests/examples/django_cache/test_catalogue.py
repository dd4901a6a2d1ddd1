"""The shop's cache tests."""

from __future__ import annotations

import django
import pytest
from django.conf import settings

if not settings.configured:
    settings.configure(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        ALLOWED_HOSTS=["testserver"],
        SECRET_KEY="for tests",
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        USE_TZ=True,
    )
    django.setup()

import catalogue as shop
from django.contrib.sessions.backends.cache import SessionStore
from django.core.cache import cache
from django.test import RequestFactory
from django.test.utils import override_settings


@pytest.fixture(autouse=True)
def _cache_in_redis(redis_settings):
    options = {name: value for name, value in redis_settings.items() if name != "url"}
    backend = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": redis_settings["url"],
        "OPTIONS": options,
        "KEY_PREFIX": "shop",
    }
    with override_settings(CACHES={"default": backend}):
        yield
        cache.close()


@pytest.fixture
def catalogue():
    products = [shop.Product(number, f"product {number}", number * 100, "ab"[number % 2]) for number in range(10)]
    return shop.Catalogue(products)


def test_a_product_is_looked_for_once(catalogue):
    assert catalogue.product(3) == catalogue.product(3) == shop.Product(3, "product 3", 300, "b")
    assert catalogue.looks == 1


def test_a_new_price_is_seen(catalogue):
    catalogue.product(3)
    catalogue.change_price(3, 1)
    assert catalogue.product(3).price == 1


def test_many_at_once_are_looked_for_as_far_as_they_are_missing(catalogue):
    catalogue.product(1)
    assert [product.number for product in catalogue.products([0, 1, 2])] == [0, 1, 2]
    assert catalogue.looks == 3
    catalogue.products([2, 1, 0])
    assert catalogue.looks == 3


@pytest.mark.parametrize("number", range(10))
def test_every_product(catalogue, number):
    assert catalogue.product(number).number == number
    assert catalogue.products([number]) == [catalogue.product(number)]
    assert catalogue.looks == 1


def test_a_shelf_is_looked_for_once(catalogue):
    assert len(catalogue.shelf("a")) == len(catalogue.shelf("a")) == 5
    assert catalogue.looks == 1


def test_a_new_price_makes_its_shelf_anew_and_no_other(catalogue):
    catalogue.shelf("a")
    catalogue.shelf("b")
    catalogue.change_price(2, 7)
    assert [product.price for product in catalogue.shelf("a") if product.number == 2] == [7]
    catalogue.shelf("b")
    assert catalogue.looks == 3


def test_views_are_counted(catalogue):
    assert [catalogue.count_view(1) for _ in range(3)] == [1, 2, 3]
    assert catalogue.count_view(2) == 1


def test_what_is_cached_ends(pass_time):
    cache.set("k", "v", 1)
    assert cache.get("k") == "v"
    pass_time(1.01)
    assert cache.get("k") is None


def test_touched_it_lives_longer(pass_time):
    cache.set("k", "v", 1)
    cache.touch("k", 60)
    pass_time(1.01)
    assert cache.get("k") == "v"


@pytest.mark.parametrize("value", [0, "", None, [], {"a": 1}, "ä" * 1000, b"\x00\xff", 1.5, (1, 2), {1, 2}])
def test_values_come_back(value):
    cache.set("k", value)
    assert cache.get("k", "missing") == value


def test_add_is_for_what_is_not_there():
    assert cache.add("k", 1)
    assert not cache.add("k", 2)
    assert cache.get("k") == 1


def test_clear():
    cache.set_many({"a": 1, "b": 2})
    cache.clear()
    assert cache.get_many(["a", "b"]) == {}


def test_the_prefix_keeps_others_out():
    cache.set("k", 1)
    assert cache.make_key("k") == "shop:1:k"
    assert cache.get("k", version=2) is None


class TestPages:
    @pytest.fixture
    def get(self):
        factory = RequestFactory()
        return lambda path: shop.front_page(factory.get(path))

    def test_made_once(self, get):
        before = shop.rendered[0]
        assert get("/").content == get("/").content
        assert shop.rendered[0] == before + 1

    def test_each_question_has_its_own(self, get):
        before = shop.rendered[0]
        assert get("/?q=a").content != get("/?q=b").content
        assert shop.rendered[0] == before + 2

    def test_it_says_how_long(self, get):
        assert "max-age=60" in get("/")["Cache-Control"]


class TestSessions:
    def test_saved_and_found(self):
        session = SessionStore()
        session["user"] = 7
        session.save()
        assert SessionStore(session.session_key)["user"] == 7

    def test_deleted(self):
        session = SessionStore()
        session["user"] = 7
        session.save()
        session.delete()
        assert "user" not in SessionStore(session.session_key)

    def test_a_new_name_and_the_same_content(self):
        session = SessionStore()
        session["user"] = 7
        session.save()
        old = session.session_key
        session.cycle_key()
        assert session.session_key != old
        assert SessionStore(session.session_key)["user"] == 7
        assert not SessionStore().exists(old)
