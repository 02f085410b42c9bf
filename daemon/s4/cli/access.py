"""`s4 admin bucket` and `s4 admin policy`: who may do what, in a word."""

from __future__ import annotations

import argparse
from typing import Any

from s4.cli import rates
from s4.cli.admin_client import Answered, Call


def add_arguments(actions: Any) -> None:
    bucket = actions.add_parser(
        "bucket", help="let everybody read a bucket, or nobody; what it may be asked for in a second"
    ).add_subparsers(dest="bucket_action", required=True, metavar="ACTION")
    public = bucket.add_parser("public", help="everybody may read its objects, without keys")
    public.add_argument("bucket", metavar="NAME")
    public.add_argument("--list", action="store_true", help="and list them")
    private = bucket.add_parser("private", help="take that back, and block public policies and ACLs")
    private.add_argument("bucket", metavar="NAME")
    rates.add_arguments(bucket, "bucket")
    policy = actions.add_parser("policy", help="what policies come to").add_subparsers(
        dest="policy_action", required=True, metavar="ACTION"
    )
    explain = policy.add_parser("explain", help="whether somebody may do something, and which statement says so")
    explain.add_argument("asked", metavar="ACTION", help="such as s3:GetObject")
    explain.add_argument("resource", metavar="BUCKET[/KEY]", nargs="?", default="", help="on what")
    explain.add_argument("--user", default="", metavar="NAME", help="who: a user, or role/NAME [anybody, without keys]")


def set_access(call: Call, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """(value, text for people)."""
    if arguments.bucket_action == "rate":
        return rates.set_rate(call, arguments, "buckets")
    public = arguments.bucket_action == "public"
    body = {"public": public, "list": public and arguments.list}
    value = next(call("PUT", f"/buckets/{arguments.bucket}/access", body), Answered())
    if public:
        more = " and list them" if value["list"] else ""
        return value, f"everybody may read the objects of {value['name']}{more}, without keys\n"
    text = f"{value['name']} is private: public policies and ACLs are blocked\n"
    if value["still_public"]:
        text += "its policy has public statements of its own, which count for nobody while they are blocked\n"
    return value, text


def explain(call: Call, arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    """(value, text for people, exit status: 3 for no)."""
    body = {"action": arguments.asked, "resource": arguments.resource, "user": arguments.user}
    value = next(call("POST", "/policy/explain", body), Answered())
    text = f"{'yes' if value['allowed'] else 'no'}: {value['why']}\n"
    if value["acls_may_allow"]:
        text += "the bucket has ACLs, which may allow it all the same\n"
    return value, text, 0 if value["allowed"] else 3
