// Templates parsed by @huggingface/jinja, as far as they are used.

/** A node of the tree: which fields it has depends on its type. */
export interface Node {
  readonly type: string;
  readonly value?: unknown;
  readonly body?: readonly Node[];
  readonly test?: Node;
  readonly alternate?: readonly Node[];
  readonly loopvar?: Node;
  readonly iterable?: Node;
  readonly defaultBlock?: readonly Node[];
  readonly assignee?: Node;
  readonly name?: Node;
  readonly args?: readonly Node[];
  readonly object?: Node;
  readonly property?: Node;
  readonly computed?: boolean;
  readonly callee?: Node;
  readonly operator?: { readonly value: string };
  readonly left?: Node;
  readonly right?: Node;
  readonly lhs?: Node;
  readonly operand?: Node;
  readonly filter?: Node;
  readonly negate?: boolean;
  readonly argument?: Node;
  readonly start?: Node;
  readonly stop?: Node;
  readonly step?: Node;
  readonly key?: Node;
  readonly condition?: Node;
  readonly trueExpr?: Node;
  readonly falseExpr?: Node;
}
