"""Which fields of which types an operation selects, fragments included; found once per document."""

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
)


def selected(schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> frozenset[str]:
    """Coordinates such as ``Customer.givenName`` of a valid operation. What @skip leaves out is counted in."""
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    walk = _Walk(schema, fragments)
    root = schema.get_root_type(operation.operation)
    if root is not None:
        walk.into(operation.selection_set, root)
    return frozenset(walk.found)


class _Walk:
    def __init__(self, schema: GraphQLSchema, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self.found: set[str] = set()
        self._schema = schema
        self._fragments = fragments
        self._spread: set[str] = set()

    def into(self, selections: SelectionSetNode, parent: GraphQLNamedType) -> None:
        for node in selections.selections:
            if isinstance(node, FieldNode):
                self._field(node, parent)
            elif isinstance(node, InlineFragmentNode):
                self.into(node.selection_set, self._named(node.type_condition, parent))
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in self._spread:
                self._spread.add(node.name.value)
                fragment = self._fragments[node.name.value]
                self.into(fragment.selection_set, self._named(fragment.type_condition, parent))

    def _field(self, node: FieldNode, parent: GraphQLNamedType) -> None:
        field = getattr(parent, "fields", {}).get(node.name.value)
        if field is None:
            return
        self.found.add(f"{parent.name}.{node.name.value}")
        if node.selection_set is not None:
            self.into(node.selection_set, get_named_type(field.type))

    def _named(self, condition: object, parent: GraphQLNamedType) -> GraphQLNamedType:
        name = getattr(getattr(condition, "name", None), "value", parent.name)
        return self._schema.type_map[name]
