"""The JSON codec: an object's state to bytes and back, exactly.

Each type has a form: its JSON, with the functions that write its values and read them back.

================== ===============================================================================
``forms``          Forms, and the terms by which a state records its declaration.
``scalars``        Types that JSON has itself, and timedelta.
``texts``          Types that are written as text, such as UUID. A new one begins here.
``plain``          Plain JSON, for ``Any`` and ``object``.
``choices``        Enums and literals.
``sequences``      Lists, tuples and deques.
``sets``           Sets and frozen sets.
``keys``           Keys of dicts.
``mappings``       Dicts of all kinds and typed dicts.
``unions``         Unions, with tags where JSON alone wouldn't name the member.
``layout``         The storage of attrs classes and dataclasses, by which they are read and built.
``defaults``       Defaults of fields.
``records``        attrs classes and dataclasses.
``rows``           Named tuples.
``structs``        Structs of msgspec.
``models``         Models of pydantic.
``pydantic_types`` Types of pydantic that are no models.
``hooks``          Types with hooks of the user, under read-back.
``custom``         The converter on which users register their hooks.
``comparison``     Comparison of values by their raw storage, for the read-back.
``names``          Stored names of classes.
``namespaces``     The names that annotations may use.
``annotations``    Resolution of a class's annotations to types.
``lookup``         Look-up of a type's form.
``depth``          The bound of nesting.
``upgrades``       Upgrades of state that was written at an earlier schema.
``terms``          Terms of a declaration that a state has recorded.
``readers``        Readers of other types' data.
``resolution``     Readers of a state that another declaration wrote.
``state``          The codec of a durable object's class, over the form of the class.
``errors``         Errors that forms raise.
================== ===============================================================================
"""
