"""A shop's catalogue in Django: what is slow to make is in the cache, and leaves it when it is no longer true."""

from __future__ import annotations

from dataclasses import dataclass, replace

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import cache_page

HOUR = 3600


@dataclass(frozen=True)
class Product:
    number: int
    name: str
    price: int
    shelf: str


class Catalogue:
    """The products, of which each look at the database is counted."""

    def __init__(self, products: list[Product]) -> None:
        self.table = {product.number: product for product in products}
        self.looks = 0

    def product(self, number: int) -> Product | None:
        return cache.get_or_set(f"product:{number}", lambda: self._look(number), HOUR)

    def _look(self, number: int) -> Product | None:
        self.looks += 1
        return self.table.get(number)

    def products(self, numbers: list[int]) -> list[Product]:
        found = cache.get_many([f"product:{number}" for number in numbers])
        missing = {f"product:{number}": self._look(number) for number in numbers if f"product:{number}" not in found}
        if missing:
            cache.set_many(missing, HOUR)
        return [(found | missing)[f"product:{number}"] for number in numbers]

    def shelf(self, name: str) -> list[Product]:
        def look() -> list[Product]:
            self.looks += 1
            return [product for product in self.table.values() if product.shelf == name]

        return cache.get_or_set(f"shelf:{name}", look, HOUR, version=cache.get_or_set(f"shelf-version:{name}", 1, None))

    def change_price(self, number: int, price: int) -> None:
        product = self.table[number] = replace(self.table[number], price=price)
        cache.delete(f"product:{number}")
        cache.get_or_set(f"shelf-version:{product.shelf}", 1, None)
        cache.incr(f"shelf-version:{product.shelf}")

    def count_view(self, number: int) -> int:
        cache.add(f"views:{number}", 0, HOUR)
        return cache.incr(f"views:{number}")


rendered = [0]


@cache_page(60)
def front_page(request: HttpRequest) -> HttpResponse:
    rendered[0] += 1
    return JsonResponse({"greeting": "hello", "q": request.GET.get("q", "")})
