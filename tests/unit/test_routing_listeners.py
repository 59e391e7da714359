"""Whose handlers send a put over HTTPS, and whose may be passed by."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from aws_lambda_powertools.shared.user_agent import register_feature_to_client

from raptor_s3.routing.listeners import foreign_handler


@pytest.fixture
def client() -> Any:
    return boto3.session.Session().client("s3", region_name="us-east-1")


def test_botocores_own_handlers_are_no_strangers(client: Any) -> None:
    assert foreign_handler(client.meta.events) == ""


def test_powertools_only_adds_to_the_user_agent(client: Any) -> None:
    register_feature_to_client(client, "NO-OP")
    assert foreign_handler(client.meta.events) == ""


def test_a_users_handler_is_seen_as_soon_as_it_comes_and_until_it_goes(client: Any) -> None:
    def add_header(request: Any, **kwargs: Any) -> None:
        request.headers["x-mine"] = "1"

    assert foreign_handler(client.meta.events) == ""
    client.meta.events.register("before-sign.s3.PutObject", add_header)
    assert "add_header" in foreign_handler(client.meta.events)
    client.meta.events.unregister("before-sign.s3.PutObject", add_header)
    assert foreign_handler(client.meta.events) == ""
