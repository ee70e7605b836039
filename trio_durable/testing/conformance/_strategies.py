"""Hypothesis strategies of the state machine."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from ..._keys import AlarmKey, ObjectKey
from ._values import TENANTS

_json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
any_state = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    ),
    _json_values,
    st.booleans(),
).filter(lambda state: _is_utf8(state))


def _is_utf8(state: bytes) -> bool:
    try:
        state.decode()
    except UnicodeDecodeError:
        return False
    return True


# Few values, so that draws meet. Some differ only in details that a careless encoding drops.
any_object_id = st.sampled_from(["a", "A", "b", "0", "00", "é", "e\u0301", "\uffff", "👾", "'"])
any_type_name = st.sampled_from(["Cart", "cart", "Order"])
any_tenant = st.sampled_from(TENANTS)
any_key = st.builds(ObjectKey, any_type_name, any_object_id, any_tenant)
# Alarms belong to fewer objects, so that claims meet changes.
any_alarm_name = st.sampled_from(["x", "X", "é", "0"])
any_alarm = st.builds(
    AlarmKey,
    st.sampled_from(["Cart", "cart"]),
    st.sampled_from(["a", "👾"]),
    any_alarm_name,
    any_tenant,
)
any_status = st.sampled_from([None, "pending", "overdue", "dead"])
any_alarm_object = any_alarm.map(lambda alarm: alarm.object_key)
any_delay = st.integers(-5, 20)
any_payload = st.none() | st.just(b"null") | any_state
