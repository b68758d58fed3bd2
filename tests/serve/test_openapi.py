"""Requests that no person would think of, made of the service's own description: it never fails, and keeps its word."""

from __future__ import annotations

import io

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FEW = settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture
def interface(client):
    return schemathesis.openapi.from_asgi("/openapi.json", client.door)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_makes_it_fail(interface, mode):
    operations = [result.ok() for result in interface.get_all_operations()]
    assert len(operations) == 10
    if mode is GenerationMode.NEGATIVE:  # of what takes nothing, there is nothing wrong to be sent
        operations = [each for each in operations if each.method == "post"]
        assert len(operations) == 5

    for operation in operations:

        @FEW
        @given(operation.as_strategy(generation_mode=mode))
        def ask(case):
            case.call_and_validate(checks=CHECKS)

        ask()


@pytest.mark.parametrize("path", ["/predict", "/explain", "/explain?format=json", "/attention", "/view", "/embed"])
def test_answers_to_real_images_are_as_described(client, interface, path):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, "PNG")
    response = client.post(path, buffer.getvalue())
    assert response.status_code == 200
    operation = interface[path.partition("?")[0]]["POST"]
    response.request.read()
    operation.validate_response(response)
