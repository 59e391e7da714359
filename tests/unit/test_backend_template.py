"""What template.yaml promises beyond its syntax: times that fit together, roles that name what they may touch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backend.inflight import TOMBSTONE_S
from backend.local.template import packaged
from backend.package import ROOT, copy_code
from backend.settings import Settings
from raptor_s3.errors import ConfigError
from raptor_s3.wire.put_header import MAX_TTL_MS

TEMPLATE = json.loads(packaged(ROOT / "template.yaml", "b", "k"))
RESOURCES = TEMPLATE["Resources"]
FUNCTIONS = {"IngestorFunction": "IngestionQueue", "CompleterFunction": "CompletionQueue"}


def properties(name):
    return RESOURCES[name]["Properties"]


def statements():
    for name, resource in RESOURCES.items():
        own = resource.get("Properties", {})
        documents = [policy["PolicyDocument"] for policy in own.get("Policies", ())]
        documents += [own["PolicyDocument"]] if "PolicyDocument" in own else []
        for document in documents:
            for statement in document["Statement"]:
                branches = statement["Fn::If"][1:] if "Fn::If" in statement else [statement]
                yield from ((name, branch) for branch in branches if "Effect" in branch)


@pytest.mark.parametrize(("function", "queue"), FUNCTIONS.items())
def test_a_message_is_hidden_for_six_times_the_functions_timeout(function, queue):
    assert properties(queue)["VisibilityTimeout"] >= 6 * properties(function)["Timeout"]


@pytest.mark.parametrize("queue", FUNCTIONS.values())
def test_dead_letters_are_reached_before_a_message_ages_out(queue):
    attempts = properties(queue)["RedrivePolicy"]["maxReceiveCount"]
    assert attempts * properties(queue)["VisibilityTimeout"] < properties(queue)["MessageRetentionPeriod"]


def test_a_tombstone_outlives_every_message_that_could_ask_again():
    longest = max(properties(queue)["MessageRetentionPeriod"] for queue in FUNCTIONS.values())
    assert longest + MAX_TTL_MS / 1000 <= TOMBSTONE_S


def test_the_table_forgets_by_the_attribute_that_the_code_writes():
    assert properties("InFlightTable")["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_partial_failures_are_asked_for(function):
    (event,) = properties(function)["Events"].values()
    assert event["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_roles_name_actions_and_resources():
    found = list(statements())
    assert len(found) > 10
    for name, statement in found:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert statement["Resource"] != "*", name
        if statement["Effect"] == "Deny":
            continue
        assert all(action == {"Ref": "ObjectActions"} or "*" not in action for action in actions), name


@pytest.mark.parametrize("bucket", ["ObjectsBucket", "StagingBucket"])
def test_buckets_take_nothing_without_tls(bucket):
    (statement,) = properties(f"{bucket}Policy")["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert RESOURCES[f"{bucket}Policy"].get("Condition") == RESOURCES[bucket].get("Condition")


def test_the_encoder_is_there_when_it_is_asked_for():
    parts = ("EncoderFunction", "EncoderRole", "EncoderLogGroup")
    assert {RESOURCES[name]["Condition"] for name in parts} == {"DeploysEncoder"}
    assert TEMPLATE["Parameters"]["DeployEncoder"]["Default"] == "false"


def test_the_environment_is_what_the_code_reads():
    variables = dict.fromkeys(TEMPLATE["Globals"]["Function"]["Environment"]["Variables"], "7") | {"DIRECT_WRITES": "guarded"}
    assert Settings.from_environment(variables).max_peer_bytes == 7 << 20
    for name in set(variables) - {"POWERTOOLS_LOG_LEVEL", "PUBLISHED_PREFIX"}:
        with pytest.raises(ConfigError, match=name):
            Settings.from_environment({**variables, name: ""})


@pytest.mark.parametrize("wrong", [{"DIRECT_WRITES": "yes"}, {"MAX_PEER_MEGABYTES": "much"}])
def test_wrong_settings_are_named(wrong):
    variables = dict.fromkeys(TEMPLATE["Globals"]["Function"]["Environment"]["Variables"], "7") | {"DIRECT_WRITES": "guarded"}
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings.from_environment(variables | wrong)


def test_no_yaml_aliases():
    """CloudFormation's own parser refuses them; cfn-lint does not."""
    import yaml

    assert not [token for token in yaml.scan((ROOT / "template.yaml").read_text()) if isinstance(token, yaml.AliasToken)]


def test_cfn_lint_has_nothing_to_say():
    lint = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "template.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert lint.returncode == 0, lint.stdout


def test_the_package_is_complete_in_itself(tmp_path):
    copy_code(tmp_path, "arm64")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import backend.ingestor, backend.completer, backend.encoder, raptor_s3.codec\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.partition('.')[0] in ('backend', 'raptor_s3') and getattr(module, '__file__', None):\n"
        "        assert module.__file__.startswith(sys.argv[1]), module.__file__\n"
        "assert not {'raptor_s3.net', 'raptor_s3.wireguard', 'raptor_s3.routing'} & set(sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not list(tmp_path.rglob("*.c"))
    assert not (tmp_path / "backend" / "local").exists()
