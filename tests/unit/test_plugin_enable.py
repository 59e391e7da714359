"""enable, disable, and what botocore's plugin variable switches on."""

import base64
import os
import subprocess
import sys
import textwrap
import threading

import boto3
import pytest
import s3_double

import raptor_s3
from raptor_s3 import plugin
from raptor_s3.errors import ConfigError

KEY = base64.b64encode(bytes(32)).decode()
BODY = b"body"


@pytest.fixture
def rig(monkeypatch):
    with s3_double.rig() as made:
        monkeypatch.setattr(plugin, "_MAKE_FAST_PATH", made.make_fast_path)
        yield made


@pytest.fixture
def profile(rig, tmp_path, monkeypatch):
    """A config file with the profiles `edge` and `broken`; the environment points to the file only."""
    path = tmp_path / "config"
    path.write_text(
        textwrap.dedent(f"""
        [profile edge]
        region = us-east-1
        aws_access_key_id = test
        aws_secret_access_key = test
        endpoint_url = {rig.s3.url}
        raptor =
            endpoint = wg://127.0.0.1:9
            server_key = {KEY}
            client_key = {KEY}
            buckets = bucket
            runtime_dir = {tmp_path / "run"}
        [profile broken]
        region = us-east-1
        raptor =
            endpoint = wg://127.0.0.1:9
            server_key = {KEY}
            client_key = {KEY}
            threshold = large
        [profile plain]
        region = us-east-1
        """)
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    return path


def make_client(name="edge", service="s3"):
    return boto3.session.Session(profile_name=name).client(service, verify=s3_double.certificate())


def put(client, bucket="bucket"):
    return client.put_object(Bucket=bucket, Key="key", Body=BODY)["ResponseMetadata"].get("Raptor", {}).get("Route")


def handlers(client):
    tree = client.meta.events._emitter._handlers
    return [tree.prefix_search(event) for event in ("before-call.s3.PutObject", "after-call.s3.PutObject")]


class TestClient:
    def test_transport_https_touches_no_runtime_directory(self, rig, profile, tmp_path, monkeypatch):
        monkeypatch.setattr(plugin, "_MAKE_FAST_PATH", None)
        (tmp_path / "run").mkdir(mode=0o755)  # refused, were it used
        client = make_client()
        raptor_s3.enable(client, transport="https")
        assert put(client) == "https"
        assert os.listdir(tmp_path / "run") == []

    def test_settings_are_those_of_the_clients_own_profile(self, rig, profile):
        client = make_client()
        activation = raptor_s3.enable(client, threshold="1KB")
        assert activation.config.source == f"{profile} [profile edge]"
        assert activation.config.buckets == ("bucket",)
        assert activation.config.threshold_bytes == 1024
        assert put(client) == "raptor"

    def test_disabling_leaves_the_client_as_it_was(self, rig, profile):
        client = make_client()
        before = handlers(client), dict(vars(client))
        raptor_s3.enable(client)
        raptor_s3.disable(client)
        raptor_s3.disable(client)
        assert (handlers(client), dict(vars(client))) == before
        assert put(client) is None
        assert rig.engine.puts == []

    def test_so_does_disabling_after_puts(self, rig, profile):
        client = make_client()
        before = handlers(client), vars(client).keys() | {"_exceptions"}  # botocore's own cache
        raptor_s3.enable(client)
        assert "upload_file" not in vars(client)
        assert put(client) == "raptor"
        assert "upload_file" in vars(client)  # shortcuts come with the first put
        assert put(client) == "raptor"
        raptor_s3.disable(client)
        assert (handlers(client), vars(client).keys() | {"_exceptions"}) == before
        assert put(client) is None
        assert len(rig.engine.puts) == 2

    def test_enabling_again_replaces(self, rig, profile):
        client = make_client()
        raptor_s3.enable(client)
        raptor_s3.enable(client, buckets="elsewhere")
        assert put(client) == "https"
        raptor_s3.disable(client)
        assert put(client) is None

    def test_as_a_context_manager(self, rig, profile):
        client = make_client()
        with raptor_s3.enable(client) as activation:
            assert put(client) == "raptor"
        assert put(client) is None
        activation.disable()

    def test_a_config_object_and_keywords(self, rig, profile):
        client = make_client("plain")
        config = raptor_s3.RaptorConfig(endpoint="wg://127.0.0.1:9", server_key=KEY, client_key=bytes(32), buckets=["a*"])
        activation = raptor_s3.enable(client, config, buckets="b*")
        assert (activation.config.endpoint, activation.config.buckets) == ("wg://127.0.0.1:9", ("b*",))

    def test_a_resource(self, rig, profile):
        resource = boto3.session.Session(profile_name="edge").resource("s3", verify=s3_double.certificate())
        raptor_s3.enable(resource)
        resource.Object("bucket", "key").put(Body=BODY)
        resource.Bucket("bucket").put_object(Key="key2", Body=BODY)
        assert rig.engine.bodies == [BODY, BODY]

    def test_wrong_settings_are_the_callers_to_see(self, profile):
        with pytest.raises(ConfigError, match=r"\[profile broken\] raptor\.threshold"):
            raptor_s3.enable(make_client("broken"))

    def test_wrong_targets(self, profile):
        with pytest.raises(TypeError, match="sqs"):
            raptor_s3.enable(make_client(service="sqs"))
        with pytest.raises(TypeError, match="str"):
            raptor_s3.enable("s3")

    def test_an_asynchronous_client_is_refused(self, profile):
        class AsyncClient:
            meta = make_client().meta

            async def _make_api_call(self, operation_name, api_params):
                pass

        with pytest.raises(TypeError, match="asynchronous"):
            raptor_s3.enable(AsyncClient())

    def test_a_runtime_directory_that_others_can_read_is_refused(self, profile, tmp_path):
        (tmp_path / "shared").mkdir(mode=0o755)
        with pytest.raises(ConfigError, match="shared"):
            raptor_s3.enable(make_client(), runtime_dir=str(tmp_path / "shared"))

    def test_from_many_threads_at_once(self, rig, profile):
        client = make_client()
        before = handlers(client)
        errors = []

        def work():
            try:
                for _ in range(20):
                    raptor_s3.enable(client)
                    client.put_object(Bucket="bucket", Key="key", Body=BODY)
                    raptor_s3.disable(client)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert handlers(client) == before

    def test_clients_are_not_kept_alive(self, rig, profile):
        import gc
        import weakref

        client = make_client()
        raptor_s3.enable(client)
        put(client)
        gone = weakref.ref(client)
        del client
        gc.collect()
        assert gone() is None


class TestSession:
    def test_clients_made_afterwards_have_it(self, rig, profile):
        session = boto3.session.Session(profile_name="edge")
        before = session.client("s3", verify=s3_double.certificate())
        with raptor_s3.enable(session):
            client = session.client("s3", verify=s3_double.certificate())
            session.client("sqs")
            assert put(client) == "raptor"
            assert put(before) is None
        assert put(client) is None
        assert put(session.client("s3", verify=s3_double.certificate())) is None

    def test_a_botocore_session_and_twice(self, rig, profile):
        session = boto3.session.Session(profile_name="edge")._session
        raptor_s3.enable(session)
        raptor_s3.enable(session, buckets="elsewhere")
        assert put(session.create_client("s3", verify=s3_double.certificate())) == "https"
        raptor_s3.disable(session)
        assert put(session.create_client("s3", verify=s3_double.certificate())) is None


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def variable(self, monkeypatch):
        monkeypatch.setenv("BOTOCORE_EXPERIMENTAL__PLUGINS", "raptor_s3=raptor_s3.plugin")

    def test_every_s3_client_has_it(self, rig, profile):
        client = make_client()
        assert put(client) == "raptor"
        assert make_client(service="sqs") is not None
        raptor_s3.disable(client)
        assert put(client) is None

    def test_what_the_program_chose_itself_stays(self, rig, profile):
        session = boto3.session.Session(profile_name="edge")
        raptor_s3.enable(session, buckets="elsewhere")
        assert put(session.client("s3", verify=s3_double.certificate())) == "https"

    def test_wrong_settings_are_logged_and_cost_nothing(self, profile, caplog):
        client = make_client("broken")
        assert "raptor.threshold" in caplog.text
        assert [len(found) for found in handlers(client)] == [len(found) for found in handlers(make_client("plain"))]

    def test_no_section_no_plugin(self, profile, caplog):
        caplog.set_level("INFO", "raptor_s3")
        make_client("plain")
        assert "no raptor endpoint in" in caplog.text


def run(code, **environ):
    environment = {**os.environ, **environ}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=True
    )


def test_importing_raptor_s3_imports_neither_botocore_nor_numpy():
    code = """
        import sys, raptor_s3
        heavy = {"botocore", "boto3", "numpy", "awscrt", "nacl", "noise", "raptor_s3.plugin"} & set(sys.modules)
        assert not heavy, heavy
        raptor_s3.RaptorConfig(threshold="1MB")
        raptor_s3.enable
        heavy = {"botocore", "boto3", "numpy", "awscrt", "noise"} & set(sys.modules)
        assert not heavy, heavy
        assert set(raptor_s3.__all__) <= set(dir(raptor_s3))
    """
    run(code)


def test_a_forked_child_can_put_and_disable(rig, profile):
    client = make_client()
    raptor_s3.enable(client)
    put(client)
    pid = os.fork()
    if pid == 0:
        try:
            ok = put(client) == "raptor"
            raptor_s3.disable(client)
            ok = ok and put(client) is None
        except BaseException:
            ok = False
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert put(client) == "raptor"


def test_enabling_imports_little(tmp_path):
    """Whoever enables and never puts pays for next to nothing; whoever puts, for the rest at the first put."""
    program = f"""
        import sys
        import boto3
        client = boto3.client("s3", region_name="us-east-1")
        before = set(sys.modules)
        import raptor_s3
        raptor_s3.enable(
            client, endpoint="wg://127.0.0.1:9", server_key="{KEY}", client_key="{KEY}", runtime_dir={str(tmp_path / "run")!r}
        )
        print(*sorted(set(sys.modules) - before))
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    imported = result.stdout.split()
    assert {"raptor_s3", "raptor_s3.plugin", "raptor_s3.routing.hooks"} <= set(imported)
    rooms = {tuple(name.split(".")[:2]) for name in imported}
    assert not rooms & {("raptor_s3", room) for room in ("codec", "wireguard", "transfer", "receiver", "gateway", "cli")}
    unwanted = ("net.engine", "net.channel", "net.session_store", "routing.endpoint", "routing.puts", "routing.shortcuts")
    assert not {f"raptor_s3.{name}" for name in unwanted} & set(imported)
    assert not {name.split(".")[0] for name in imported} & {"asyncio", "cffi", "cryptography", "nacl", "noise", "numpy", "rich"}
    assert len(imported) <= 20
