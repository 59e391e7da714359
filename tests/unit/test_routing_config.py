"""Settings: three sources, one precedence, and errors that say where to look (docs/settings.md)."""

import base64
import os

import pytest

from raptor_s3.errors import ConfigError
from raptor_s3.routing.config import SETTINGS, RaptorConfig
from raptor_s3.routing.profile import read_profile

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
SOURCE = "~/.aws/config [profile edge]"
SECTION = {"endpoint": "wg://gateway.example.com:51820", "server_key": KEY, "client_key": KEY}


def load(section=None, environ=None, overrides=None, **profile):
    return RaptorConfig.load({"raptor": {**SECTION, **(section or {})}, **profile}, environ or {}, overrides, source=SOURCE)


def test_defaults_are_those_of_the_design():
    config = load()
    assert (config.buckets, config.threshold_bytes, config.confirm, config.overhead, config.rate_mbps, config.timeout_s) == (
        (), 256 * 1024, "file", None, None, 5.0,
    )  # fmt: skip
    assert (config.on_failure, config.transport, config.code, config.allow_plaintext) == ("fallback", "auto", "rfc6330", False)


def test_each_source_wins_over_the_one_before():
    section = {"threshold": "1KB", "timeout": "1s", "buckets": "a"}
    environ = {"RAPTOR_TIMEOUT": "2s", "RAPTOR_BUCKETS": "b"}
    config = load(section, environ, {"buckets": ["c", "d-*"]})
    assert (config.threshold_bytes, config.timeout_s, config.buckets) == (1024, 2.0, ("c", "d-*"))


def test_a_config_object_overrides_only_what_it_was_given():
    config = load({"threshold": "1KB", "confirm": "block"}, {}, RaptorConfig(threshold="2MB"))
    assert (config.threshold_bytes, config.confirm) == (2 << 20, "block")


def test_every_setting_has_an_environment_variable():
    samples = {
        "endpoint": "wg://other:1", "server_key": OTHER, "client_key": OTHER, "preshared_key": OTHER, "buckets": "x, y",
        "threshold": "auto", "confirm": "none", "overhead": "0.05", "rate_mbps": "12.5", "timeout": "750ms",
        "on_failure": "raise", "transport": "raptor", "code": "published", "allow_plaintext": "true",
        "backend_allows": "tagging", "s3_endpoint": "http://localhost:4566", "runtime_dir": "/tmp/x",
    }  # fmt: skip
    config = load({}, {f"RAPTOR_{key.upper()}": value for key, value in samples.items()})
    assert samples.keys() | {"client_key_file", "preshared_key_file"} == set(SETTINGS)
    assert config.threshold_bytes is None
    assert (config.endpoint, config.timeout_s, config.overhead, config.rate_mbps) == ("wg://other:1", 0.75, 0.05, 12.5)
    assert config.buckets == ("x", "y")
    assert config.backend_allows == ("Tagging",)
    assert config.allow_plaintext is True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("endpoint", "https://gateway:1"),
        ("endpoint", "wg://gateway"),
        ("endpoint", "wg://gateway:99999"),
        ("endpoint", "wg://gateway:1/path"),
        ("server_key", "c2hvcnQ="),
        ("client_key", "not base64 at all !"),
        ("threshold", "-1"),
        ("threshold", "many"),
        ("threshold", True),
        ("confirm", "perhaps"),
        ("overhead", "-0.1"),
        ("overhead", "nan"),
        ("rate_mbps", "0"),
        ("timeout", "0s"),
        ("timeout", "inf"),
        ("on_failure", "explode"),
        ("transport", "pigeon"),
        ("allow_plaintext", "maybe"),
        ("backend_allows", "acl"),
        ("s3_endpoint", "localhost:4566"),
        ("buckets", {"a": "b"}),
    ],
)
def test_a_malformed_setting_names_file_profile_and_key(key, value):
    with pytest.raises(ConfigError) as caught:
        load({key: value})
    assert str(caught.value).startswith(f"{SOURCE} raptor.{key}: ")
    assert caught.value.key == key


def test_errors_name_the_source_that_is_wrong():
    with pytest.raises(ConfigError, match="RAPTOR_TIMEOUT"):
        load({"timeout": "5s"}, {"RAPTOR_TIMEOUT": "soon"})
    with pytest.raises(ConfigError, match="keyword"):
        load({"timeout": "5s"}, {}, {"timeout": "soon"})
    with pytest.raises(ConfigError, match="keyword"):
        RaptorConfig(timeout="soon")


@pytest.mark.parametrize(
    ("section", "environ"),
    [({"treshold": "1MB"}, {}), ({"Threshold ": "1MB"}, {}), ({}, {"RAPTOR_TRESHOLD": "1MB"})],
)
def test_an_unknown_setting_is_an_error_that_suggests(section, environ):
    with pytest.raises(ConfigError, match=r"unknown setting.*(threshold|THRESHOLD)"):
        load(section, environ)


def test_variables_of_others_are_left_alone():
    assert load({}, {"RAPTOR_EXPRESS": "1", "RAPTOR_CODEC_KERNEL": "numpy"}) == load()


@pytest.mark.parametrize("missing", ["server_key", "client_key"])
def test_an_endpoint_needs_its_keys(missing):
    section = {key: value for key, value in SECTION.items() if key != missing}
    with pytest.raises(ConfigError, match=missing):
        RaptorConfig.load({"raptor": section}, {}, source=SOURCE)


def test_plaintext_must_be_asked_for():
    with pytest.raises(ConfigError, match="allow_plaintext"):
        RaptorConfig.load({"raptor": {"endpoint": "udp://h:1"}}, {}, source=SOURCE)
    assert RaptorConfig.load({"raptor": {"endpoint": "udp://h:1", "allow_plaintext": "true"}}, {}).endpoint == "udp://h:1"


def test_a_section_that_is_not_indented_is_an_error():
    with pytest.raises(ConfigError, match="indented"):
        RaptorConfig.load({"raptor": "wg://h:1"}, {}, source=SOURCE)


def test_no_section_is_no_fast_path():
    assert not RaptorConfig.load({}, {}).is_configured
    assert not load({"transport": "https"}).is_configured


class TestKeyFile:
    def write(self, tmp_path, mode, content=KEY):
        path = tmp_path / "raptor.key"
        path.write_text(content + "\n")
        path.chmod(mode)
        return path

    def load(self, path):
        section = {key: value for key, value in SECTION.items() if key != "client_key"}
        return RaptorConfig.load({"raptor": {**section, "client_key_file": str(path)}}, {}, source=SOURCE)

    def test_private_file(self, tmp_path):
        assert self.load(self.write(tmp_path, 0o600)).client_key == bytes(range(32))

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
    def test_a_file_that_others_can_read_is_refused(self, tmp_path, mode):
        with pytest.raises(ConfigError, match=r"raptor\.client_key_file: .*chmod 600"):
            self.load(self.write(tmp_path, mode))

    def test_missing_and_malformed_files(self, tmp_path):
        with pytest.raises(ConfigError, match=f"No such file or directory; make one: raptor keygen {tmp_path}/nothing$"):
            self.load(tmp_path / "nothing")
        with pytest.raises(ConfigError, match=r"No such file or directory$"):  # a preshared key has two ends
            load({"preshared_key_file": str(tmp_path / "nothing")})
        with pytest.raises(ConfigError, match="does not hold") as caught:
            self.load(self.write(tmp_path, 0o600, "c2VjcmV0"))
        assert "c2VjcmV0" not in str(caught.value)

    def test_the_stronger_source_brings_its_own_key(self, tmp_path):
        path = self.write(tmp_path, 0o600, OTHER)
        config = load({}, {"RAPTOR_CLIENT_KEY_FILE": str(path)})
        assert config.client_key == bytes(range(1, 33))
        with pytest.raises(ConfigError, match="both given"):
            load({"client_key_file": str(path)})


def test_secrets_stay_out_of_repr():
    config = load({"preshared_key": OTHER})
    for secret in (KEY, OTHER, repr(config.client_key), repr(config.preshared_key)):
        assert secret not in repr(config)


@pytest.mark.parametrize(
    ("environ", "profile", "expected"),
    [
        ({}, {}, None),
        ({}, {"endpoint_url": "http://a/"}, "http://a"),
        ({"AWS_ENDPOINT_URL": "http://b"}, {"endpoint_url": "http://a"}, "http://b"),
        ({"AWS_ENDPOINT_URL": "http://b", "AWS_ENDPOINT_URL_S3": "http://c"}, {}, "http://c"),
        ({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL": "http://b"}, {}, None),
        ({}, {"services": "local", "endpoint_url": "http://a"}, "http://d"),
        ({"RAPTOR_S3_ENDPOINT": "http://e"}, {"endpoint_url": "http://a"}, "http://e"),
    ],
)
def test_the_profiles_own_s3_endpoint(environ, profile, expected):
    services = {"local": {"s3": {"endpoint_url": "http://d"}}}
    config = RaptorConfig.load({"raptor": SECTION, **profile}, environ, services=services)
    assert config.s3_endpoint == expected


class TestProfile:
    FILE = """
[default]
region = eu-west-1
[profile edge]
services = local
raptor =
    endpoint = wg://h:1
    buckets = a, b
[services local]
s3 =
    endpoint_url = http://localhost:1
"""

    def environ(self, tmp_path, content):
        path = tmp_path / "config"
        path.write_text(content)
        return {"AWS_CONFIG_FILE": str(path)}

    def test_reads_what_botocore_reads(self, tmp_path):
        botocore_loader = pytest.importorskip("botocore.configloader")
        environ = self.environ(tmp_path, self.FILE) | {"AWS_PROFILE": "edge"}
        profile = read_profile(environ)
        theirs = botocore_loader.load_config(environ["AWS_CONFIG_FILE"])
        assert profile.scoped_config == theirs["profiles"]["edge"]
        assert profile.services == theirs["services"]
        assert profile.source == f"{environ['AWS_CONFIG_FILE']} [profile edge]"

    def test_default_missing_and_named(self, tmp_path):
        environ = self.environ(tmp_path, self.FILE)
        assert read_profile(environ).scoped_config == {"region": "eu-west-1"}
        assert read_profile(environ, "nobody").scoped_config == {}
        assert read_profile({"AWS_CONFIG_FILE": os.devnull + "/none"}).scoped_config == {}

    @pytest.mark.parametrize("content", ["no section\n", "[profile a]\nraptor =\n    nonsense\n", "[default]\n[default]\n"])
    def test_a_file_that_does_not_parse_is_named(self, tmp_path, content):
        environ = self.environ(tmp_path, content)
        with pytest.raises(ConfigError, match="config"):
            read_profile(environ)


def test_a_comment_behind_a_value_is_a_comment():
    section = {
        "endpoint": "wg://h:1   # ours",
        "server_key": f"{'A' * 43}=",
        "client_key": f"{'B' * 42}A=",
        "threshold": "1MB # large",
    }
    loaded = RaptorConfig.load({"raptor": section}, {})
    assert (loaded.endpoint, loaded.threshold_bytes) == ("wg://h:1", 1 << 20)


def test_instances_are_values():
    first, second = RaptorConfig(endpoint="wg://h:1", timeout="2s"), RaptorConfig(timeout="2s", endpoint="wg://h:1")
    assert first == second
    assert hash(first) == hash(second)
    assert first != RaptorConfig(endpoint="wg://h:2", timeout="2s")
    assert first != "wg://h:1"
    with pytest.raises(AttributeError):
        first.timeout_s = 3.0
