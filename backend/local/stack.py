"""The whole backend on this machine: MiniStack with the real template.yaml, `raptor gateway` in front of it.

    MiniStack   one process on a free port of 127.0.0.1; S3, SQS, SNS, DynamoDB, SSM, Lambda, CloudFormation; nothing persists
    stack       template.yaml, deployed by CloudFormation, with a stub for Proxylity's custom resources
    replies     an SQS queue subscribed to the reply topic, as a self-hosted gateway needs
    gateway     `raptor gateway`, or what `gateway_command` says; may be started and stopped at will

Invariant: `close` ends every process that was started here, whatever has happened before; leaving the `with` block, an
exception, Ctrl-C and SIGTERM all come to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.local.processes import Child, LocalStackError, clean_environment, free_port, tail
from backend.local.template import packaged
from backend.package import ROOT, zip_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType, TracebackType

REGION: Final = "us-east-1"
STACK: Final = "raptor"
CODE_BUCKET: Final = "raptor-code"
START_TIMEOUT_S: Final = 60.0
ATTEMPTS: Final = 3
WARM: Final[Mapping[str, int]] = {"IngestorFunctionName": 3, "CompleterFunctionName": 1}
"""Sandboxes to have from the start. A burst that needs more waits for a cold start, as on AWS."""

CREDENTIALS: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the gateway listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"wg://{self.host}:{self.port}"


class LocalStack:
    """Start with `with`, or `start` and `close`.

    `directory` holds logs and scratch files. `policy` is the backend's policy document. `destination`: whether the gateway
    invokes the ingestor or sends to its queue. `parameters` override the template's. `buckets` are made before the stack is.
    `gateway_command` is what `raptor gateway` is run as, up to its options.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        policy: Mapping[str, Any] | None = None,
        destination: str = "lambda",
        parameters: Mapping[str, str] | None = None,
        buckets: Sequence[str] = (),
        gateway_command: Sequence[str] = (sys.executable, "-m", "raptor_s3.gateway"),
        gateway_public_key: str = "",
        template: Path = ROOT / "template.yaml",
        log_level: str = "WARNING",
    ) -> None:
        if destination not in ("lambda", "sqs"):
            raise ValueError(f"destination is {destination!r}, neither lambda nor sqs")
        self.directory = Path(directory).resolve()
        self.destination = destination
        self.outputs: dict[str, str] = {}
        self.endpoint_url = ""
        self.replies_queue_url = ""
        self.gateway_endpoint = Endpoint("127.0.0.1", 0)
        self.deploy_s = 0.0
        self._policy = policy or {}
        self._parameters = dict(parameters or {})
        self._buckets = tuple(buckets)
        self._gateway_command = list(gateway_command)
        self._gateway_public_key = gateway_public_key or "A" * 43 + "="
        self._template = template
        self._log_level = log_level
        self._aws: Child | None = None
        self._gateway: Child | None = None
        self._scratch: Path | None = None
        self._handlers: dict[int, Any] = {}
        self._clients: dict[str, Any] = {}

    # Life

    def __enter__(self) -> LocalStack:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Raises LocalStackError, with the end of the log that tells why, after everything has been ended again."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._watch_signals()
        try:
            self._scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=self.directory))
            self._start_aws()
            began = time.monotonic()
            self._deploy()
            self.deploy_s = time.monotonic() - began
            self._subscribe_replies()
            self._warm()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything. May be called again."""
        gateway, self._gateway = self._gateway, None
        aws, self._aws = self._aws, None
        scratch, self._scratch = self._scratch, None
        try:
            if gateway is not None:
                gateway.stop()
        finally:
            if aws is not None:
                aws.stop(timeout_s=0.5)  # it has nothing to save
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
            self._clients.clear()
            self._unwatch_signals()

    def _watch_signals(self) -> None:
        """SIGTERM would end this process without its `finally` blocks."""
        if threading.current_thread() is not threading.main_thread():
            return

        def leave(number: int, frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, leave)

    def _unwatch_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    @property
    def _folder(self) -> Path:
        if self._scratch is None:
            raise LocalStackError("the local stack is not up")
        return self._scratch

    # What others need

    @property
    def bucket(self) -> str:
        """The bucket that the stack has made, or was given."""
        return self.outputs["ObjectsBucketName"]

    @property
    def env(self) -> dict[str, str]:
        """Environment of a client: stock AWS tools with it talk to the local stack."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint_url}

    def client(self, service: str) -> Any:
        """A boto3 client of the local AWS."""
        if service not in self._clients:
            import boto3
            from botocore.config import Config

            self._clients[service] = boto3.session.Session().client(
                service,
                region_name=REGION,
                endpoint_url=self.endpoint_url,
                aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
                config=Config(retries={"total_max_attempts": 2}, read_timeout=60, max_pool_connections=32),
            )
        return self._clients[service]

    def set_policy(self, policy: Mapping[str, Any]) -> None:
        """Sandboxes that are up see it within a minute (backend.authorize.REFRESH_S)."""
        self.client("ssm").put_parameter(
            Name=self.outputs["PolicyParameterName"], Value=json.dumps(policy), Type="String", Overwrite=True
        )

    def lambda_log(self, function: str) -> str:
        """What a function ("Ingestor", "Completer", "Encoder") has logged."""
        logs = self.client("logs")
        with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
            events = logs.filter_log_events(logGroupName=f"/aws/lambda/{STACK}-{function.lower()}")["events"]
            return "\n".join(event["message"] for event in events)
        return ""

    # MiniStack

    def _start_aws(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start_aws_on(free_port())
            except LocalStackError as error:
                if attempt == ATTEMPTS or "already in use" not in str(error):
                    raise
            else:
                return

    def _start_aws_on(self, port: int) -> None:
        environment = clean_environment(
            {
                **CREDENTIALS,
                "GATEWAY_PORT": str(port),
                "EDGE_PORT": str(port),
                "BIND_HOST": "127.0.0.1",
                "MINISTACK_HOST": "127.0.0.1",
                "MINISTACK_REGION": REGION,
                "TMPDIR": str(self._folder),
                "S3_DATA_DIR": str(self._folder / "s3"),
                "STATE_DIR": str(self._folder / "state"),
                "LAMBDA_EXECUTOR": "local",
                "LOG_LEVEL": self._log_level,
                "IOT_MTLS_ENABLED": "0",  # it would take port 8883
                "SFTP_ENABLED": "0",
                "DOCKER_HOST": "unix:///nonexistent",  # or it looks for containers to remove
                "PYTHONDONTWRITEBYTECODE": "1",
            }
        )
        log = self.directory / "ministack.log"
        log.unlink(missing_ok=True)
        self._aws = Child("MiniStack", [sys.executable, "-m", "ministack"], environment, self._folder, log)
        url = f"http://127.0.0.1:{port}"
        try:
            self._aws.wait_until(lambda: _answers(f"{url}/_ministack/health"), START_TIMEOUT_S)
        except BaseException:
            self._aws.stop()
            raise
        self.endpoint_url = url

    # The stack

    def _deploy(self) -> None:
        archive = self._folder / "code.zip"
        zip_code(archive)
        s3 = self.client("s3")
        for bucket in (CODE_BUCKET, *self._buckets):
            s3.create_bucket(Bucket=bucket)
        s3.upload_file(str(archive), CODE_BUCKET, "code.zip")
        parameters = {
            "PolicyJson": json.dumps(self._policy),
            "Destination": self.destination,
            "UseProxylity": "true",
            "DeployEncoder": "true",
            "ProxylityServiceToken": self._make_stub(),
            "ProxylityApiKey": "local",
            "ProxylityServiceRoleArn": "arn:aws:iam::000000000000:role/local",
            **self._parameters,
        }
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK,
            TemplateBody=packaged(self._template, CODE_BUCKET, "code.zip"),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        self.outputs = self._wait_for_stack(cloudformation)

    def _wait_for_stack(self, cloudformation: Any) -> dict[str, str]:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            stack = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]
            if stack["StackStatus"] == "CREATE_COMPLETE":
                return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
            if not stack["StackStatus"].endswith("CREATE_IN_PROGRESS"):
                break
            time.sleep(0.05)
        events = cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
        reasons = [
            f"    {event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in reversed(events)
            if event["ResourceStatus"].endswith("FAILED")
        ]
        reason = stack.get("StackStatusReason", "")
        log = tail(self.directory / "ministack.log")
        raise LocalStackError("\n".join([f"the stack is {stack['StackStatus']}: {reason}", *reasons]) + log)

    def _warm(self) -> None:
        """Have sandboxes made now: a put's time to live would be too short for that."""
        names = [name for name, number in WARM.items() for _ in range(number)]
        with ThreadPoolExecutor(len(names)) as pool:
            for name, answer in zip(names, pool.map(self._invoke_idly, names), strict=True):
                if answer:
                    raise LocalStackError(f"{name[:-12]} fails: {answer}{tail(self.directory / 'ministack.log')}")

    def _invoke_idly(self, name: str) -> str:
        """What went wrong, or nothing."""
        answer = self.client("lambda").invoke(FunctionName=self.outputs[name], Payload=b'{"Messages":[],"Records":[]}')
        reason: str = answer["Payload"].read().decode(errors="replace")
        return reason if "FunctionError" in answer else ""

    def _make_stub(self) -> str:
        """The function behind Proxylity's custom resources; returns its ARN."""
        self.gateway_endpoint = Endpoint("127.0.0.1", free_port(socket.SOCK_DGRAM))
        archive = self._folder / "stub.zip"
        with zipfile.ZipFile(archive, "w") as made:
            made.write(Path(__file__).with_name("proxylity_stub.py"), "proxylity_stub.py")
        created = self.client("lambda").create_function(
            FunctionName="proxylity-stub",
            Runtime="python3.12",
            Handler="proxylity_stub.handler",
            Role="arn:aws:iam::000000000000:role/local",
            Code={"ZipFile": archive.read_bytes()},
            Timeout=20,
            Environment={
                "Variables": {
                    "LISTENER_DOMAIN": self.gateway_endpoint.host,
                    "LISTENER_PORT": str(self.gateway_endpoint.port),
                    "LISTENER_PUBLIC_KEY": self._gateway_public_key,
                }
            },
        )
        return str(created["FunctionArn"])

    def _subscribe_replies(self) -> None:
        self.replies_queue_url = self.subscribe(self.outputs["ReplyTopicArn"], "raptor-replies")

    def subscribe(self, topic_arn: str, queue_name: str) -> str:
        """A queue that gets what is published, as it is; returns its URL. Without the queue's policy nothing would come."""
        sqs = self.client("sqs")
        url = sqs.create_queue(QueueName=queue_name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
                }
            ],
        }
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        self.client("sns").subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
        return str(url)

    # The gateway

    def start_gateway(self, private_key_file: Path, peers_file: Path, *options: str) -> Endpoint:
        """Start `raptor gateway` on `gateway_endpoint`, and wait until it listens. Raises LocalStackError."""
        if self._gateway is not None and self._gateway.is_running:
            raise LocalStackError("the gateway runs already")
        ready = self._folder / "gateway.ready"
        ready.unlink(missing_ok=True)
        forward = (
            ["--forward-lambda", self.outputs["IngestorFunctionName"]]
            if self.destination == "lambda"
            else ["--forward-sqs", self.outputs["IngestionQueueUrl"]]
        )
        command = [
            *self._gateway_command,
            *("--listen", f"{self.gateway_endpoint.host}:{self.gateway_endpoint.port}"),
            *("--private-key-file", str(private_key_file), "--peers-file", str(peers_file)),
            *("--region", REGION, "--aws-endpoint-url", self.endpoint_url),
            *("--replies-queue", self.replies_queue_url, "--ready-file", str(ready)),
            *forward,
            *options,
        ]
        environment = clean_environment({**CREDENTIALS, "PYTHONUNBUFFERED": "1"})
        self._gateway = Child("raptor gateway", command, environment, self._folder, self.directory / "gateway.log")
        try:
            self._gateway.wait_until(ready.exists, START_TIMEOUT_S)
        except BaseException:
            self.stop_gateway()
            raise
        return self.gateway_endpoint

    def stop_gateway(self) -> None:
        """The endpoint stays reserved for the next `start_gateway`."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.stop()

    @property
    def gateway_is_running(self) -> bool:
        return self._gateway is not None and self._gateway.is_running


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False
