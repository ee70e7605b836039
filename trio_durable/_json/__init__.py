"""The JSON codec: an object's state to bytes and back, exactly.

Each type has two hooks: functions that write its values as JSON data, and read them back.

=============== ==================================================================================
``scalars``     Types written as one JSON value, such as UUID. A new one begins here.
``plain``       Plain JSON, for ``Any`` and ``object``.
``choices``     Enums and literals.
``keys``        Types of a dict's keys.
``containers``  Lists, sets, tuples, dicts, named tuples and typed dicts.
``unions``      Unions, with tags where JSON alone wouldn't name the member.
``classes``     attrs classes and dataclasses.
``hooks``       Look-up of a type's hooks.
``state``       The codec of a durable object's class, which calls the hooks of its fields.
``upgrades``    Upgrades of state that was written at an earlier schema.
``annotations`` Resolution of a class's annotations to types.
``errors``      Errors that hooks raise.
=============== ==================================================================================
"""
