"""Settings of buckets that S4 lacks: what reads them answers as S3 does where they were never set.

Tools look at every setting of a bucket before they change one (Terraform, scanners of accounts), and take
NotImplemented for a failure. What sets them is NotImplemented (`s3/routing.py`): never a silent yes.
"""

from __future__ import annotations

from s4.gateway.context import Gateway
from s4.http.answers import Answer, respond_xml
from s4.http.authorize import Call
from s4.http.operations.settings import Operation, shown
from s4.s3.errors import S3Error
from s4.s3.xml import document, tag


def _told(root: str, inside: str = "") -> Operation:
    """What is answered with a document."""
    return shown(root, lambda _: inside, str)


def _missing(code: str) -> Operation:
    """What is not there."""
    return shown("", lambda _: None, str, code)


def _none(root: str) -> Operation:
    """A listing of settings of which a bucket may have several. No token was ever given out for it."""

    async def listed(gateway: Gateway, call: Call) -> Answer:
        call.must_exist()
        token = call.request.query.get("continuation-token")
        if token is not None:
            raise S3Error(
                "InvalidArgument",
                "The continuation token provided is incorrect",
                ArgumentName="continuation-token",
                ArgumentValue=token,
            )
        return respond_xml(document(root, tag("IsTruncated", "false")))

    return listed


OPERATIONS: dict[str, Operation] = {
    "GetBucketAccelerateConfiguration": _told("AccelerateConfiguration"),
    "GetBucketLogging": _told("BucketLoggingStatus"),
    "GetBucketRequestPayment": _told("RequestPaymentConfiguration", tag("Payer", "BucketOwner")),
    "GetBucketAbac": _told("AbacStatus", tag("Status", "Disabled")),
    "GetBucketReplication": _missing("ReplicationConfigurationNotFoundError"),
    "GetBucketMetadataConfiguration": _missing("MetadataConfigurationNotFound"),
    "GetBucketMetadataTableConfiguration": _missing("MetadataConfigurationNotFound"),
    "GetBucketAnalyticsConfiguration": _missing("NoSuchConfiguration"),
    "GetBucketIntelligentTieringConfiguration": _missing("NoSuchConfiguration"),
    "GetBucketInventoryConfiguration": _missing("NoSuchConfiguration"),
    "GetBucketMetricsConfiguration": _missing("NoSuchConfiguration"),
    "ListBucketAnalyticsConfigurations": _none("ListBucketAnalyticsConfigurationResult"),
    "ListBucketIntelligentTieringConfigurations": _none("ListBucketIntelligentTieringConfigurationsOutput"),
    "ListBucketInventoryConfigurations": _none("ListInventoryConfigurationsResult"),
    "ListBucketMetricsConfigurations": _none("ListMetricsConfigurationsResult"),
}
