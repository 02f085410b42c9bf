"""What a document may say when it is put: only what can come true. Pure.

A statement that can never apply allows nothing, which its author notices, or denies nothing, which nobody does. So
condition keys must be such as requests have (keys.KEYS), for an action of their statement, with an operator of their
type, and variables must be such keys too. Documents that are kept already are read by `policy.parse` alone and work as
they did: there an unknown key counts as met in a Deny and as not met in an Allow (conditions.Condition.holds).

Actions of the services that S4 has are such as exist. As on AWS, a bucket's policy names actions of S3 alone, each
with a resource that it can be on; IAM's documents may name actions of other services too, of which S4 knows nothing.
"""

from __future__ import annotations

from s4.access import conditions, keys
from s4.access import principals as said
from s4.access.awsnames import unknown
from s4.access.conditions import Condition
from s4.access.patterns import PolicyError, matches, variables
from s4.access.policy import VERSIONS, Policy, Statement, parse
from s4.access.s3names import ON_BUCKETS, ON_OBJECTS


def read_new(text: str, *, principals: bool = False, resources: bool = True) -> Policy:
    """A document of IAM that is put. Raises PolicyError."""
    policy = parse(text, principals=principals, resources=resources)
    if principals and any(said.kept(one) is not None for one in said.of(text)):
        raise PolicyError("Invalid principal in policy")
    for statement in policy.statements:
        for action in statement.actions:
            if wrong := unknown(action):
                raise PolicyError(f"Policy has invalid action: {wrong}")
        _check(statement, policy.version)
    return policy


def read_new_of_bucket(text: str, bucket: str) -> Policy:
    """A bucket's policy that is put. Raises PolicyError."""
    policy = read_new(text, principals=True)
    for statement in policy.statements:
        _check_bucket(statement, f"arn:aws:s3:::{bucket}")
    return policy


def _check(statement: Statement, version: str) -> None:
    if _is_foreign(statement):
        return  # nothing here is ever asked for it
    texts = [*statement.resources, *(str(value) for one in statement.conditions for value in one.values)]
    named = [name for text in texts for name in variables(text)]
    if named and version != VERSIONS[0]:
        raise PolicyError(f'A policy with variables needs "Version": "{VERSIONS[0]}".')
    for name in named:
        _key(name, statement, "the variable")
    for one in statement.conditions:
        key = _key(one.key, statement, "the condition key")
        _check_operator(one, key)


def _key(name: str, statement: Statement, what: str) -> keys.Key:
    """The key of a name. Raises PolicyError where requests never have it for an action of the statement."""
    found = keys.find(name)
    if found is None:
        why = "S4 never has a value for" if name in keys.NEVER else "There is no such thing as"
        raise PolicyError(f"{why} {what} {name}.")
    if not any(_has(statement, action) for action in found.actions):
        raise PolicyError(
            f"Conditions do not apply to combination of actions and resources in statement: {what} {name}."
        )
    return found


def _has(statement: Statement, action: str) -> bool:
    """Whether a statement is about an action, or about one of a service: SERVICE:* or *."""
    if action == "*":
        return True
    if action.endswith("*"):
        service = action[:-1]
        if statement.not_actions:
            return not any(one in ("*", action) for one in statement.actions)
        return any(one == "*" or one.startswith(service) for one in statement.actions)
    return statement.names_action(action)


def _check_operator(one: Condition, key: keys.Key) -> None:
    if one.operator == "null":
        if one.every is not None or one.if_exists:
            raise PolicyError("Null takes neither IfExists nor ForAllValues nor ForAnyValue.")
        return
    if conditions.family(one.operator) not in keys.OPERATORS[key.type]:
        raise PolicyError(
            f"The condition operator {one.operator} does not fit {one.key}, which is of the type {key.type}."
        )


def _is_foreign(statement: Statement) -> bool:
    """Whether all actions are of services that S4 has not."""
    return not statement.not_actions and all(
        one != "*" and one.partition(":")[0] not in keys.SERVICES for one in statement.actions
    )


def _check_bucket(statement: Statement, arn: str) -> None:
    for resource in statement.resources:
        if resource != arn and not resource.startswith(arn + "/") and resource.rstrip("*") != arn:
            raise PolicyError("Policy has invalid resource")
    of_bucket = statement.not_resources or any(matches(one, arn) for one in statement.resources)
    of_objects = statement.not_resources or any(one != arn for one in statement.resources)
    for action in statement.actions:
        named = [matches(action, one) for one in ON_BUCKETS], [matches(action, one) for one in ON_OBJECTS]
        if not any(named[0]) and not any(named[1]):
            raise PolicyError(f"Policy has invalid action: {action}")
        if statement.not_actions:
            continue
        if not (any(named[0]) and of_bucket) and not (any(named[1]) and of_objects):
            raise PolicyError(f"Action does not apply to any resource(s) in statement: {action}")
