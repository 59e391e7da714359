"""The verdict on each parameter, bucket and size (docs/drop-in.md)."""

import pytest

from raptor_s3.routing import policy
from raptor_s3.routing.config import RaptorConfig
from raptor_s3.routing.parameters import ELSEWHERE, HEADERS, METADATA_PREFIX, Unsupported, Verdict, put_fields
from raptor_s3.routing.policy import LinkEstimate, Route
from raptor_s3.routing.request import PutRequest
from raptor_s3.wire.put_header import CARRIED, POLICY_GATED, TIME_TO_LIVE, build_put_header

KEY = "A" * 43 + "="
AWS = "https://my-bucket.s3.us-west-2.amazonaws.com"


def config(region="", **settings):
    return RaptorConfig.load(
        {"region": region}, {}, {"endpoint": "wg://h:1", "server_key": KEY, "client_key": KEY, "buckets": "my-*", **settings}
    )


def installed_put_object():
    import botocore.loaders
    import botocore.model

    loader = botocore.loaders.Loader()
    model = botocore.model.ServiceModel(loader.load_service_model("s3", "service-2"))
    return model.operation_model("PutObject")


def test_every_input_member_of_the_installed_botocore_has_a_verdict():
    """When this fails, S3 has a new parameter: decide in raptor_s3/routing/parameters.py. Until then it goes over HTTPS."""
    for name, shape in installed_put_object().input_shape.members.items():
        header = shape.serialization.get("name", "").lower()
        location = shape.serialization.get("location")
        if name in ELSEWHERE:
            assert location in ("uri", "headers", None)
            assert location != "headers" or header == METADATA_PREFIX
        else:
            assert location == "header", name
            assert header in HEADERS, f"{name} ({header}) has no verdict"
            assert HEADERS[header].name == name


def test_the_verdicts_agree_with_what_the_put_header_can_carry():
    verdicts = {parameter.name: parameter.verdict for parameter in HEADERS.values()}
    carried = {name for name, verdict in verdicts.items() if verdict is Verdict.CARRIED} | ELSEWHERE - {"Body"}
    assert carried - {"ContentLength"} == set(CARRIED)
    assert {name for name, verdict in verdicts.items() if verdict is Verdict.ALLOWED} == set(POLICY_GATED)


def test_output_members_of_the_installed_botocore_are_known():
    from raptor_s3.routing.response import _MEMBERS

    never_on_this_path = {"SSECustomerAlgorithm", "SSECustomerKeyMD5"}
    theirs = {name: shape.serialization["name"].lower() for name, shape in installed_put_object().output_shape.members.items()}
    assert {name for name in theirs if name not in _MEMBERS} <= never_on_this_path
    assert all(_MEMBERS[name] == header for name, header in theirs.items() if name in _MEMBERS)


@pytest.mark.parametrize("header", [header for header, parameter in HEADERS.items() if parameter.verdict is Verdict.CARRIED])
def test_carried_headers_travel_under_their_boto3_names(header):
    value = {"content-length": "3", "x-amz-server-side-encryption": "AES256"}.get(header, "value")
    fields = put_fields({header.title(): value}, "b", "k", ())
    name = HEADERS[header].name
    if name == "ContentLength":
        assert fields.pop(name) == 3
    else:
        assert fields[name] == value
    build_put_header({**fields, "ChecksumCRC32": "AAAAAA==", TIME_TO_LIVE: 1000})


@pytest.mark.parametrize("header", [header for header, parameter in HEADERS.items() if parameter.verdict is Verdict.HTTPS])
def test_what_the_backend_can_not_reproduce_is_declined_by_name(header):
    with pytest.raises(Unsupported, match=HEADERS[header].name):
        put_fields({header: "value"}, "b", "k", tuple(POLICY_GATED))


@pytest.mark.parametrize("header", [header for header, parameter in HEADERS.items() if parameter.verdict is Verdict.ALLOWED])
def test_gated_parameters_need_the_setting(header):
    name = HEADERS[header].name
    value = "true" if name == "BucketKeyEnabled" else "value"
    with pytest.raises(Unsupported, match="backend_allows"):
        put_fields({header: value}, "b", "k", ())
    fields = put_fields({header: value}, "b", "k", (name,))
    build_put_header({**fields, "ChecksumCRC32": "AAAAAA==", TIME_TO_LIVE: 1000})


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"x-amz-new-thing": "1"}, "unknown header x-amz-new-thing"),
        ({"X-Amzn-Trace-Id": "Root=1"}, "unknown header"),
        ({"x-amz-server-side-encryption": "aws:kms"}, "SSEKMSKeyId"),
        ({"content-encoding": "gzip,aws-chunked"}, "aws-chunked"),
        ({"content-length": "many"}, "ContentLength"),
        ({"content-type": "text/plain\r\nX-Injected: 1"}, "not plain text"),
        ({"content-disposition": "f\xfcr"}, "not plain text"),
        ({"content-type": b"text/plain"}, "not plain text"),
        ({"x-amz-meta-a": "b" * 20_000}, "octets of headers"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "x"}, "more than one checksum"),
    ],
)
def test_odd_headers_are_declined(headers, reason):
    with pytest.raises(Unsupported, match=reason):
        put_fields(headers, "b", "k", ())


def test_metadata_keeps_its_spelling_and_connection_headers_are_left_out():
    headers = {"x-amz-meta-CamelCase": "v", "X-Amz-Meta-b": "", "User-Agent": "Boto3/1 \xff", "Expect": "100-continue"}
    assert put_fields(headers, "b", "k", ()) == {"Bucket": "b", "Key": "k", "Metadata": {"CamelCase": "v", "b": ""}}


class TestBucket:
    @pytest.mark.parametrize(
        "base_url",
        [
            AWS,
            "https://my-bucket.s3.amazonaws.com",
            "https://my-bucket.s3.dualstack.eu-central-1.amazonaws.com",
            "https://s3.us-west-2.amazonaws.com/my-bucket",
            "https://my-bucket.s3-us-west-2.amazonaws.com",
            "https://my-bucket.s3.cn-north-1.amazonaws.com.cn",
            "https://my-bucket.s3.us-gov-west-1.amazonaws.com",
        ],
    )
    def test_plain_s3_hosts_of_the_profiles_partition(self, base_url):
        others = ("us-gov-west-1", "cn-north-1")
        region = next((name for name in others if name in base_url), "eu-west-1")
        assert policy.bucket_reason("my-bucket", base_url, config(region)) == ""
        for other in {*others, ""} - {region if region in others else ""}:
            assert "the profile in" in policy.bucket_reason("my-bucket", base_url, config(other))

    @pytest.mark.parametrize(
        ("bucket", "base_url"),
        [
            ("my-bucket", "https://my-bucket.s3-fips.us-west-2.amazonaws.com"),
            ("my-bucket", "https://my-bucket.s3-accelerate.amazonaws.com"),
            ("my-bucket", "https://my-bucket.s3-accelerate.dualstack.amazonaws.com"),
            ("my-bucket", "https://other.s3.us-west-2.amazonaws.com"),
            ("my-bucket", "http://localhost:9000/my-bucket"),
            ("my-bucket", "https://my-bucket.s3.us-west-2.amazonaws.com.evil.example"),
            ("my-bucket", "https://my-bucket.evil.example/.s3.us-west-2.amazonaws.com"),
            ("my-bucket", "https://s3.us-west-2.amazonaws.com/other"),
            ("my-zone--use1-az4--x-s3", "https://my-zone--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com"),
            ("my-point-abc-s3alias", "https://my-point-abc-s3alias.s3.us-west-2.amazonaws.com"),
            ("my-lambda--ol-s3", "https://my-lambda--ol-s3.s3.us-west-2.amazonaws.com"),
            ("arn:aws:s3:us-west-2:1:accesspoint/my", "https://my-1.s3-accesspoint.us-west-2.amazonaws.com"),
            ("other", "https://other.s3.us-west-2.amazonaws.com"),
        ],
    )
    def test_all_else_goes_over_https(self, bucket, base_url):
        assert policy.bucket_reason(bucket, base_url, config(buckets="my-*, arn:*"))

    def test_no_bucket_by_default(self):
        settings = RaptorConfig.load({}, {}, {"endpoint": "wg://h:1", "server_key": KEY, "client_key": KEY})
        assert "not listed in raptor.buckets" in policy.bucket_reason("my-bucket", AWS, settings)

    def test_the_profiles_own_endpoint_and_no_other(self):
        own = config(s3_endpoint="http://localhost:4566")
        assert policy.bucket_reason("my-bucket", "http://localhost:4566/my-bucket", own) == ""
        assert policy.bucket_reason("my-bucket", "http://my-bucket.localhost:4566", own) == ""
        for other in (
            "https://localhost:4566/my-bucket",
            "http://localhost:4567/my-bucket",
            "http://localhost:4566/x/my-bucket",
            AWS,
        ):
            assert policy.bucket_reason("my-bucket", other, own)


def decide(settings, size_bytes=1000, link=None, **change):
    request = PutRequest("bucket", "key", b"", "https://bucket.s3.amazonaws.com", "v4", "s3")._replace(**change)
    return policy.decide(request, size_bytes, settings, policy.body_limit(settings, link))


class TestDecide:
    def test_fast(self):
        assert decide(config()) == policy.FAST

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"auth_type": "v4a"}, "signing is v4a"),
            ({"auth_type": "v4-s3express"}, "signing is"),
            ({"signing_name": "s3-outposts"}, "s3-outposts"),
            ({"key": "k" * 1025}, "longer than 1024"),
            ({"foreign_handler": "handler app.inject"}, "handler app.inject"),
            ({"size_bytes": 2_202_010}, "body 2.1 MB > threshold 256 KB"),
            ({"size_bytes": 262_145}, "body 262,145 B > threshold 262,144 B"),
        ],
    )
    def test_https_with_a_reason(self, change, reason):
        decision = decide(config(), **change)
        assert decision.route is Route.HTTPS
        assert reason in decision.reason

    def test_the_threshold_is_inclusive_and_unknown_lengths_pass(self):
        assert decide(config(), 256 * 1024).route is Route.RAPTOR
        assert decide(config(), 256 * 1024 + 1).route is Route.HTTPS
        assert decide(config(), None).route is Route.RAPTOR

    def test_transport_raptor_lifts_the_threshold_only(self):
        strict = config(transport="raptor")
        assert decide(strict, policy.MAX_BODY).route is Route.RAPTOR
        assert decide(strict, policy.MAX_BODY + 1).route is Route.HTTPS
        assert policy.bucket_reason("unlisted", "https://unlisted.s3.amazonaws.com", strict)


class TestAutomaticThreshold:
    def test_loss_and_distance_raise_it(self):
        near = policy.automatic_threshold(LinkEstimate(0.001, 0.0, 1e9))
        far = policy.automatic_threshold(LinkEstimate(0.15, 0.0, 20e6))
        lossy = policy.automatic_threshold(LinkEstimate(0.15, 0.05, 20e6))
        assert policy.AUTO_FLOOR <= near <= far <= lossy == policy.AUTO_CEILING

    def test_a_slow_learned_rate_lowers_it(self):
        assert policy.automatic_threshold(LinkEstimate(0.02, 0.3, 5e5)) >= policy.AUTO_FLOOR

    @pytest.mark.parametrize("link", [None, LinkEstimate(0, 0, 1e6), LinkEstimate(0.1, 0, 0), LinkEstimate(-1, 2, -3)])
    def test_nothing_learned_is_the_default(self, link):
        assert policy.automatic_threshold(link) == 256 * 1024

    def test_decisions_use_it(self):
        assert decide(config(threshold="auto"), 4 << 20, LinkEstimate(0.15, 0.05, 20e6)).route is Route.RAPTOR
        assert decide(config(threshold="auto"), 4 << 20, None).route is Route.HTTPS
